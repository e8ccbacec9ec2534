"""`atelier.keras` in real trainings: what is recorded, that a stop ends the training, that a later attempt goes on."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

EXTENSIONS = Path(__file__).resolve().parents[2] / "extensions"
HEAD = """
import json, os, random, sys, threading, time
import numpy as np
import keras
import atelier
keras.utils.set_random_seed(1)
x = np.random.default_rng(0).normal(size=(200, 8)).astype("float32")
y = (x.sum(axis=1) > 0).astype("int32")
def built():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(2, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
def fit(model, epochs, **options):
    return model.fit(x, y, epochs=epochs, batch_size=20, verbose=0, shuffle=False, **options)
model = built()
"""

pytestmark = pytest.mark.timeout(240)


def attempt(python: Path, folder: Path, program: str, *, code: int = 0, **environ: str) -> Any:
    """What a program printed last, run as an attempt whose spool is below ``folder``, to an exit code."""
    environment = os.environ | {
        "PYTHONPATH": str(EXTENSIONS),
        "ATELIER_RUN_DIR": str(folder),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "CUDA_VISIBLE_DEVICES": "",
        **environ,
    }
    argv = [python, "-W", "error:::atelier", "-c", HEAD + program]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr[-4000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "spool" / name).read_text().splitlines()]


def test_records_epochs_batches_and_progress(tensorflow_python: Path, tmp_path: Path) -> None:
    program = """
history = fit(model, 3, validation_data=(x, y), callbacks=[atelier.keras.Callback(every=5)])
print(json.dumps({"history": history.history, "class": isinstance(atelier.keras.Callback(), keras.callbacks.Callback)}))
"""
    told = attempt(tensorflow_python, tmp_path, program)
    assert told["class"]
    metrics = lines(tmp_path, "metrics.jsonl")
    epochs = [line for line in metrics if "loss" in line["values"]]
    assert [line["step"] for line in epochs] == [1, 2, 3]
    for name, values in told["history"].items():
        assert [line["values"][name] for line in epochs] == pytest.approx(values)
    assert epochs[0]["values"]["learning_rate"] == pytest.approx(0.001)
    assert sorted(line["step"] for line in metrics if "batch/loss" in line["values"]) == [5, 10, 15, 20, 25, 30]
    progress = [event for event in lines(tmp_path, "events.jsonl") if event["type"] == "progress"]
    assert progress[0]["done"] == 0
    assert (progress[-1]["done"], progress[-1]["total"]) == (3, 3)


def test_tensors_are_numbers(tensorflow_python: Path, tmp_path: Path) -> None:
    program = """
import atelier.errors
job = atelier.current_run()
tensor = keras.ops.convert_to_tensor
job.log(step=tensor(3), tensor=tensor(0.5), variable=model.optimizer.learning_rate)
try:
    job.log(x=keras.ops.zeros(2))
except atelier.errors.RefusedInput as problem:
    print(json.dumps(problem.code))
"""
    assert attempt(tensorflow_python, tmp_path, program) == "bad_metric"
    (line,) = lines(tmp_path, "metrics.jsonl")
    assert (line["step"], line["values"]) == (3, {"tensor": 0.5, "variable": pytest.approx(0.001)})


@pytest.mark.parametrize(("order", "code"), [("preempt", 75), ("cancel", 0)])
def test_order_to_stop_ends_the_training_at_a_batch(
    tensorflow_python: Path, tmp_path: Path, order: str, code: int
) -> None:
    """What comes after the training is for the attempt that ends it; one that is cancelled goes on to its end."""
    program = """
import atexit
seen = []
is_over = False
atexit.register(lambda: print(json.dumps([len(seen), is_over])))
class Watcher(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        seen.append(batch)
        if len(seen) == 25:
            path = os.environ["ATELIER_RUN_DIR"] + "/spool/control.json"
            with open(path + ".new", "w") as file:
                json.dump({"stop": ORDER}, file)
            os.replace(path + ".new", path)
fit(model, 1000, callbacks=[atelier.keras.Callback(checkpoint=True), Watcher()])
is_over = True
"""
    seen, is_over = attempt(tensorflow_python, tmp_path, program.replace("ORDER", repr(order)), code=code)
    assert 25 <= seen <= 27
    assert is_over == (order == "cancel")
    kept = [event["step"] for event in lines(tmp_path, "events.jsonl") if event["type"] == "checkpoint"]
    assert kept == [1, 2], "an epoch that was cut short is not kept as a whole one"


RANDOM = """
tf = __import__("tensorflow")
tf.config.experimental.enable_op_determinism()
model = keras.Sequential([keras.Input((8,)), keras.layers.GaussianNoise(0.1), keras.layers.Dense(16, "relu"),
                          keras.layers.Dropout(0.3), keras.layers.Dense(2, "softmax")])
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
class Drawing(keras.callbacks.Callback):
    drawn = []
    def on_epoch_begin(self, epoch, logs=None):
        self.drawn.append([epoch, random.random(), float(np.random.rand())])
done = atelier.keras.resume(model)
keeping = atelier.keras.Callback(every=4, checkpoint=True)
history = model.fit(x, y, epochs=EPOCHS, initial_epoch=done, batch_size=20, verbose=0, validation_split=0.2,
                    callbacks=[keeping, Drawing()])
after = [random.random(), float(np.random.rand())]
print(json.dumps([history.history, Drawing.drawn, after, [value.tolist() for value in model.get_weights()]]))
"""


def test_later_attempt_ends_where_one_training_would(tensorflow_python: Path, tmp_path: Path) -> None:
    """To the bit, with dropout, noise and shuffled batches; each step is logged once."""
    whole = attempt(tensorflow_python, tmp_path / "whole", RANDOM.replace("EPOCHS", "4"))
    attempt(tensorflow_python, tmp_path / "1", RANDOM.replace("EPOCHS", "2"))
    environ = {"ATELIER_RESUME_FROM": str(tmp_path / "1/spool/checkpoints/step-00000002")}
    resumed = attempt(tensorflow_python, tmp_path / "2", RANDOM.replace("EPOCHS", "4"), **environ)
    assert resumed == [{name: values[2:] for name, values in whole[0].items()}, whole[1][2:], *whole[2:]]
    logged = [(line["step"], line["values"]) for n in "12" for line in lines(tmp_path / n, "metrics.jsonl")]
    assert logged == [(line["step"], line["values"]) for line in lines(tmp_path / "whole", "metrics.jsonl")]
    environ = {"ATELIER_RESUME_FROM": str(tmp_path / "whole/spool/checkpoints/step-00000004")}
    ended = attempt(tensorflow_python, tmp_path / "3", RANDOM.replace("EPOCHS", "4"), **environ)
    assert ended == [{}, [], *whole[2:]], "all was done, and is as it was"
