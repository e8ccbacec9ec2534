"""One line for Keras: ``callbacks=[atelier.keras.Callback()]`` logs, reports progress, and stops when asked.

Keras itself is imported when `Callback` or `resume` is first used.
"""

from __future__ import annotations

import functools
import json
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atelier.errors import RefusedInput
from atelier.recorder import Recorder, current_run
from atelier.recorder.leaving import leave_if_preempted
from atelier.recorder.randomness import put_back, random_state

if TYPE_CHECKING:
    Callback: type[Any]

__all__ = ["Callback", "resume"]

WEIGHTS = "model.weights.h5"
"""The file in a checkpoint of ours; it holds the optimizer's state too."""

STATE = "training.json"
"""Beside it: epochs and batches done, and the random states."""

_SEEDS = "seed_generator_state"
"""What Keras calls the state of the generator of a layer, as of ``Dropout``; it saves none with the weights."""

_PROGRESS_EVERY_S = 0.5


class _Recording:
    """The behaviour of `Callback`, apart from Keras, so that this module is imported without it.

    Hooks are safe to be called from Keras' own threads, so that a batch never waits for them.
    """

    async_safe = True
    model: Any
    params: dict[str, Any] | None

    def __init__(self, every: int | None = None, *, checkpoint: bool = False, job: Recorder | None = None) -> None:
        super().__init__()
        if every is not None and every < 1:
            raise RefusedInput("bad_metric", f"every={every} is no number of batches.", hint="Give 1 or more.")
        self._job = job or current_run()
        self._every = every
        self._checkpoint = checkpoint
        self._epoch = 0
        self._batches = 0
        self._cut_short = False
        self._progress_at_s = 0.0
        self._counting = threading.Lock()

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Report nothing done of all epochs."""
        self._cut_short = False
        self._epochs_done(self._epoch, None)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Remember the epoch; the first one after a resume is not 0, and goes on with its batches and random states."""
        told = {} if self._batches or not epoch else _told(self._job.resume_from)
        if told.get("epochs") == epoch:
            self._batches = told["batches"]
            put_back(told["random"])
        self._epoch = epoch
        self._epochs_done(epoch, None)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Log every ``every`` batches, report progress at times, end the training when the run is to stop."""
        with self._counting:
            self._batches += 1
            count = self._batches
        if self._every and count % self._every == 0:
            self._log(count, {f"batch/{name}": value for name, value in (logs or {}).items()})
        if time.monotonic() - self._progress_at_s > _PROGRESS_EVERY_S:
            self._epochs_done(self._epoch, batch + 1)
        if self._job.should_stop():
            self._cut_short = True
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Log the epoch's metrics, keep a checkpoint if wanted (not of an epoch that was cut short)."""
        self._log(epoch + 1, logs or {})
        if self._cut_short:
            return
        self._epochs_done(epoch + 1, None)
        if self._checkpoint:
            self._keep(epoch + 1)
        if self._job.should_stop():
            self.model.stop_training = True

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """End the program when the run has to give its place away and has kept checkpoints to go on from."""
        if self._checkpoint:
            leave_if_preempted(self._job)

    def _log(self, step: int, values: Mapping[str, Any]) -> None:
        rate = getattr(getattr(self.model, "optimizer", None), "learning_rate", None)
        rates = {} if rate is None or any(name.startswith("batch/") for name in values) else {"learning_rate": rate}
        numbers = {**rates, **{name: value for name, value in values.items() if value is not None}}
        if numbers:
            self._job.log(step=step, **{name: float(value) for name, value in numbers.items()})

    def _epochs_done(self, epoch: int, batches: int | None) -> None:
        known = self.params or {}
        share = batches / known["steps"] if batches and known.get("steps") else 0.0
        self._progress_at_s = time.monotonic()
        self._job.progress(epoch + min(share, 1.0), known.get("epochs") or None)

    def _keep(self, step: int) -> None:
        with tempfile.TemporaryDirectory(prefix="atelier-") as folder:
            self.model.save_weights(Path(folder) / WEIGHTS)
            seeds = [[int(number) for number in state.numpy()] for state in _seeds(self.model)]
            told = {"epochs": step, "batches": self._batches, "seeds": seeds, "random": random_state()}
            (Path(folder) / STATE).write_text(json.dumps(told))
            self._job.checkpoint(folder, step=step)


def _seeds(model: Any) -> list[Any]:
    """The states of the generators of a model's layers, in an order that is the same for the same model."""
    return [variable for variable in model.variables if variable.name == _SEEDS]


def _told(folder: Path | None) -> dict[str, Any]:
    """What a checkpoint of ours tells besides the weights; nothing when it is none, or of an earlier version."""
    if folder is None or not (folder / STATE).exists():
        return {}
    told: dict[str, Any] = json.loads((folder / STATE).read_bytes())
    return told


def resume(model: Any, *, job: Recorder | None = None) -> int:
    """Load the newest checkpoint of an earlier attempt into a compiled, built model.

    Parameters
    ----------
    model : keras.Model
        Compiled and built, as when the checkpoint was made; its weights and its optimizer's state are replaced.

    Returns
    -------
    int
        How many epochs it has been trained for; 0 when there is no checkpoint.

    Notes
    -----
    The random states of the model's layers, NumPy and `random` are put back too. After
    ``keras.utils.set_random_seed(…)`` and ``tf.config.experimental.enable_op_determinism()`` a training on arrays that
    was interrupted ends with the numbers of one that was not, on the same machine. Not kept are the states of other
    callbacks (``EarlyStopping`` counts anew), the place within an epoch, and the order of a ``tf.data`` pipeline that
    shuffles anew in each pass.

    Examples
    --------
    >>> done = atelier.keras.resume(model)  # doctest: +SKIP
    >>> model.fit(x, y, epochs=5, initial_epoch=done, callbacks=[atelier.keras.Callback(checkpoint=True)])
    """
    folder = (job or current_run()).resume_from
    if folder is None or not (folder / WEIGHTS).exists():
        return 0
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and not optimizer.built:
        optimizer.build(model.trainable_variables)
    model.load_weights(folder / WEIGHTS)
    told = _told(folder)
    if not told:
        return int(folder.name.split("-")[1])
    for state, kept in zip(_seeds(model), told["seeds"], strict=False):
        state.assign(kept)
    put_back(told["random"])
    return int(told["epochs"])


_CALLBACK_DOC = """Records a Keras training: metrics of each epoch, progress, and a stop when the run is to end.

Parameters
----------
every : int, optional
    Log the running metrics also every so many batches, as ``batch/loss`` …; the step is the number of batches then.
checkpoint : bool
    Keep weights, optimizer and random states after each epoch, for `resume` in a later attempt. Put this callback last,
    so that what the others change is in them. When the run has to give its place away the program ends with the
    training, with exit code 75: what comes after ``fit`` is for the attempt that ends the training.
job : Recorder, optional
    Where to; default `atelier.current_run`.

Notes
-----
The step of an epoch's metrics is the number of epochs done. A batch costs some microseconds and never waits.

Examples
--------
>>> model.fit(x, y, epochs=5, callbacks=[atelier.keras.Callback()])
"""


@functools.cache
def _callback_class() -> type[Any]:
    import keras

    return type("Callback", (_Recording, keras.callbacks.Callback), {"__doc__": _CALLBACK_DOC, "__module__": __name__})


def __getattr__(name: str) -> Any:
    if name == "Callback":
        return _callback_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
