"""`atelier.torch` in real loops: what is recorded, what it costs, and that a later attempt goes on where one ended."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

EXTENSIONS = Path(__file__).resolve().parents[2] / "extensions"
HEAD = """
import json, os, random, sys, time
import numpy as np
import torch
from torch import nn
import atelier
torch.manual_seed(1), np.random.seed(1), random.seed(1)
torch.set_num_threads(1)
x = torch.randn(200, 8)
y = (x.sum(1) > 0).long()
model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.1), nn.ReLU(), nn.Linear(16, 2))
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
losses = []
def train():
    for index in range(0, 200, 20):
        optimizer.zero_grad()
        loss = criterion(model(x[index:index + 20]), y[index:index + 20])
        losses.append(float(loss))
        loss.backward()
        optimizer.step()
    scheduler.step()
    with torch.no_grad():
        criterion(model(x), y)
states = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
"""

pytestmark = pytest.mark.timeout(240)


def attempt(python: Path, folder: Path, program: str, *, code: int = 0, **environ: str) -> Any:
    """What a program printed last, run as an attempt whose spool is below ``folder``, to an exit code."""
    environment = os.environ | {
        "PYTHONPATH": str(EXTENSIONS),
        "ATELIER_RUN_DIR": str(folder),
        "CUDA_VISIBLE_DEVICES": "",
        **environ,
    }
    argv = [python, "-c", HEAD + program]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr[-4000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    path = folder / "spool" / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_watch_logs_mean_training_losses_and_rates(pytorch_python: Path, tmp_path: Path) -> None:
    program = """
watched = atelier.torch.watch(optimizer, loss=criterion, every=5)
for epoch in atelier.torch.epochs(2):
    train()
watched.close()
watched.close()
train()
print(json.dumps(losses))
"""
    losses = attempt(pytorch_python, tmp_path, program)
    metrics = lines(tmp_path, "metrics.jsonl")
    assert [line["step"] for line in metrics] == [5, 10, 15, 20]
    means = [sum(losses[n : n + 5]) / 5 for n in range(0, 20, 5)]
    assert [line["values"]["loss"] for line in metrics] == pytest.approx(means)
    assert [line["values"]["lr"] for line in metrics] == pytest.approx([0.01, 0.01, 0.005, 0.005])
    progress = [event["done"] for event in lines(tmp_path, "events.jsonl") if event["type"] == "progress"]
    assert progress == [0, 1, 2]


def test_loss_that_is_a_function_and_watching_again(pytorch_python: Path, tmp_path: Path) -> None:
    program = """
first = atelier.torch.watch(optimizer, every=1)
watched = atelier.torch.watch(optimizer, every=1)
for value in (1.0, 2.0):
    optimizer.zero_grad()
    watched.loss((model(x) ** 2).mean() * 0 + value).backward()
    optimizer.step()
watched.flush()
refused = []
for wrong in (lambda: atelier.torch.watch(model), lambda: atelier.torch.watch(optimizer, loss=nn.functional.mse_loss),
              lambda: atelier.torch.watch(optimizer, every=0)):
    try:
        wrong()
    except atelier.errors.RefusedInput as problem:
        refused.append(problem.code)
print(json.dumps(refused))
"""
    refused = attempt(pytorch_python, tmp_path, "import atelier.errors\n" + program)
    assert refused == ["not_watchable", "not_watchable", "bad_metric"]
    assert [line["values"]["loss"] for line in lines(tmp_path, "metrics.jsonl")] == [1.0, 2.0]


def test_tensors_are_numbers(pytorch_python: Path, tmp_path: Path) -> None:
    program = """
import warnings
import atelier.errors
warnings.simplefilter("error")
job = atelier.current_run()
job.log(step=torch.tensor(3), grad=torch.tensor(0.5, requires_grad=True), half=torch.tensor([0.5]).bfloat16())
try:
    job.log(x=torch.zeros(2))
except atelier.errors.RefusedInput as problem:
    print(json.dumps(problem.code))
"""
    assert attempt(pytorch_python, tmp_path, program) == "bad_metric"
    assert [(line["step"], line["values"]) for line in lines(tmp_path, "metrics.jsonl")] == [
        (3, {"grad": 0.5, "half": 0.5})
    ]


def test_other_ranks_are_silent(pytorch_python: Path, tmp_path: Path) -> None:
    program = """
atelier.torch.watch(optimizer, loss=criterion, every=1)
for epoch in atelier.torch.epochs(1, states): train()
print(1)
"""
    attempt(pytorch_python, tmp_path, program, RANK="1")
    assert lines(tmp_path, "metrics.jsonl") == []
    assert not (tmp_path / "spool/checkpoints").exists()


def test_later_attempt_ends_where_one_training_would(pytorch_python: Path, tmp_path: Path) -> None:
    """To the bit: weights, the loss of every step, all random states, and what `watch` logs, each step once."""
    program = """
drawn = []
watched = atelier.torch.watch(optimizer, loss=criterion, every=7)
for epoch in atelier.torch.epochs(EPOCHS, states):
    drawn.append([epoch, float(torch.rand(())), float(np.random.rand()), random.random()])
    train()
watched.close()
drawn.append([float(torch.rand(())), float(np.random.rand()), random.random()])
print(json.dumps([losses, drawn, [value.tolist() for value in model.parameters()]]))
"""
    whole = attempt(pytorch_python, tmp_path / "whole", program.replace("EPOCHS", "4"))
    attempt(pytorch_python, tmp_path / "1", program.replace("EPOCHS", "2").replace("watched.close()", ""))
    checkpoint = tmp_path / "1/spool/checkpoints/step-00000002"
    environ = {"ATELIER_RESUME_FROM": str(checkpoint)}
    resumed = attempt(pytorch_python, tmp_path / "2", program.replace("EPOCHS", "4"), **environ)
    assert resumed == [whole[0][20:], whole[1][2:], whole[2]]
    logged = [(line["step"], line["values"]) for n in "12" for line in lines(tmp_path / n, "metrics.jsonl")]
    assert logged == [(line["step"], line["values"]) for line in lines(tmp_path / "whole", "metrics.jsonl")]
    assert [step for step, _ in logged] == [7, 14, 21, 28, 35]
    environ = {"ATELIER_RESUME_FROM": str(tmp_path / "whole/spool/checkpoints/step-00000004")}
    after = attempt(pytorch_python, tmp_path / "3", program.replace("EPOCHS", "4"), **environ)
    assert after == [[], whole[1][-1:], whole[2]], "all was done, and is as it was"


ORDERED = """
import atexit
done = []
atexit.register(lambda: print(json.dumps([done, is_over])))
is_over = False
for epoch in atelier.torch.epochs(1000, states, checkpoint_every=100):
    train()
    done.append(epoch)
    if epoch == 4:
        with open(os.environ["ATELIER_RUN_DIR"] + "/spool/control.json", "w") as file:
            json.dump({"stop": ORDER}, file)
is_over = True
"""


@pytest.mark.parametrize(("order", "code"), [("preempt", 75), ("cancel", 0), ("deadline", 0)])
def test_order_to_stop_ends_after_the_epoch_with_a_checkpoint(
    pytorch_python: Path, tmp_path: Path, order: str, code: int
) -> None:
    """What comes after the loop is for the attempt that ends the training; one that is cancelled goes on to its end."""
    told = attempt(pytorch_python, tmp_path, ORDERED.replace("ORDER", repr(order)), code=code)
    assert told == [[0, 1, 2, 3, 4], order != "preempt"]
    kept = [event["step"] for event in lines(tmp_path, "events.jsonl") if event["type"] == "checkpoint"]
    assert kept == [5]


def test_checkpoint_of_other_states_is_refused(pytorch_python: Path, tmp_path: Path) -> None:
    attempt(pytorch_python, tmp_path / "1", "for epoch in atelier.torch.epochs(1, states): train()\nprint(1)")
    checkpoint = tmp_path / "1/spool/checkpoints/step-00000001"
    program = """
import atelier.errors
try:
    list(atelier.torch.epochs(2, {"model": model}))
except atelier.errors.RefusedInput as problem:
    print(json.dumps(problem.code))
"""
    told = attempt(pytorch_python, tmp_path / "2", program, ATELIER_RESUME_FROM=str(checkpoint))
    assert told == "wrong_checkpoint"


def test_logging_costs_a_loop_less_than_it_can_feel(pytorch_python: Path, tmp_path: Path) -> None:
    program = """
for _ in range(5): train()
def seconds(watching):
    watched = atelier.torch.watch(optimizer, loss=criterion) if watching else None
    begin = time.perf_counter()
    for _ in range(30): train()
    taken = time.perf_counter() - begin
    if watched: watched.close()
    return taken / 300
pairs = [(seconds(False), seconds(True)) for _ in range(7)]
print(json.dumps(min(after - before for before, after in pairs)))
"""
    more_s = attempt(pytorch_python, tmp_path, program)
    assert more_s < 100e-6, "per step; a step of a real model takes milliseconds"
