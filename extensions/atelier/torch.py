"""One line for a PyTorch loop: `watch` logs loss and rate, `epochs` reports, keeps checkpoints, resumes, stops.

PyTorch itself is imported when a checkpoint is written or read.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, Self

from atelier.errors import RefusedInput
from atelier.recorder import Recorder, current_run
from atelier.recorder.leaving import leave_if_preempted
from atelier.recorder.randomness import put_back, random_state

__all__ = ["Stateful", "Watch", "epochs", "watch"]

STATE = "training.pt"
"""The file in a checkpoint of ours; it is loaded with ``weights_only=True``, so no pickle is ever run."""

_MARK = "_atelier_watch"


class Stateful(Protocol):
    """A module, an optimizer, a scheduler, a scaler, a sampler …"""

    def state_dict(self) -> dict[str, Any]:
        """Its state."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Take a state."""
        ...


def watch(optimizer: Any, loss: Any = None, *, every: int = 10, job: Recorder | None = None) -> Watch:
    """Log the training loss and the learning rate of a loop that stays as it is.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Each of its steps counts one. Watching it again ends the earlier watch.
    loss : torch.nn.Module, optional
        The criterion, as ``nn.CrossEntropyLoss()``: what it returns with gradients is the training loss. For a loss
        that is a function, leave it out and write ``loss = watched.loss(F.cross_entropy(…))``.
    every : int
        Log every so many steps: ``loss`` is the mean since the last time.
    job : Recorder, optional
        Where to; default `atelier.current_run`.

    Returns
    -------
    Watch

    Notes
    -----
    The device is never waited for: the mean is kept on it, and read one logging later, when it has long been computed.
    Only the process of rank 0 logs.

    Examples
    --------
    >>> atelier.torch.watch(optimizer, loss=criterion)  # doctest: +SKIP
    """
    if every < 1:
        raise RefusedInput("bad_metric", f"every={every} is no number of steps.", hint="Give 1 or more.")
    if not hasattr(optimizer, "register_step_post_hook"):
        words = f"{type(optimizer).__name__} can't be watched: it has no step hooks."
        raise RefusedInput("not_watchable", words, hint="Give a torch.optim.Optimizer.")
    if loss is not None and not hasattr(loss, "register_forward_hook"):
        words = f"{getattr(loss, '__name__', loss)!r} can't be watched: it is no torch.nn.Module."
        raise RefusedInput("not_watchable", words, hint="Leave it out, and write loss = watched.loss(…) in the loop.")
    earlier = getattr(optimizer, _MARK, None)
    if earlier is not None:
        earlier.close()
    watched = Watch(optimizer, loss, every=every, job=job or current_run())
    setattr(optimizer, _MARK, watched)
    return watched


class Watch:
    """What `watch` returns: counts steps and logs until it is closed."""

    def __init__(self, optimizer: Any, criterion: Any, *, every: int, job: Recorder) -> None:
        self.steps = 0
        self._job = job
        self._every = every
        self._optimizer = optimizer
        self._sum: Any = None
        self._losses = 0
        self._pending: tuple[int, Any, dict[str, Any]] | None = None
        self._handles = [optimizer.register_step_post_hook(self._after_step)] if _is_first_rank() else []
        if criterion is not None and self._handles:
            self._handles.append(criterion.register_forward_hook(lambda _module, _inputs, value: self._see(value)))

    def loss(self, value: Any) -> Any:
        """Count a loss (a tensor) into the mean, and return it as it is."""
        if self._handles:
            self._see(value)
        return value

    def _see(self, value: Any) -> None:
        if getattr(value, "requires_grad", False):
            mean = value.detach().float().mean()
            self._sum = mean if self._sum is None else self._sum + mean
            self._losses += 1

    def _after_step(self, _optimizer: Any, _arguments: Any, _named: Any) -> None:
        self.steps += 1
        if self.steps % self._every == 0:
            self.flush()
            mean = None if self._sum is None else self._sum / self._losses
            self._pending = (self.steps, mean, self._rates())
            self._sum, self._losses = None, 0

    def _rates(self) -> dict[str, Any]:
        groups = self._optimizer.param_groups
        return {"lr" if number == 0 else f"lr/{number}": group["lr"] for number, group in enumerate(groups)}

    def flush(self) -> None:
        """Log what is ready and not yet logged; done at the end of every epoch of `epochs`, and by `close`."""
        if self._pending is not None:
            step, mean, rates = self._pending
            self._pending = None
            values = rates if mean is None else {"loss": mean, **rates}
            self._job.log(step=step, **{name: float(value) for name, value in values.items()})

    def state_dict(self) -> dict[str, Any]:
        """How far it has counted, as `epochs` keeps it with the optimizer that is watched."""
        return {"steps": self.steps, "sum": None if self._sum is None else float(self._sum), "losses": self._losses}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Count on from there, so that a later attempt logs each step once."""
        self.steps, self._sum, self._losses = (state_dict[name] for name in ("steps", "sum", "losses"))

    def close(self) -> None:
        """Log the rest and stop watching. A second call does nothing."""
        self.flush()
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def epochs(
    total: int,
    states: Mapping[str, Stateful] | None = None,
    *,
    checkpoint_every: int = 1,
    job: Recorder | None = None,
) -> Iterator[int]:
    """Yield the numbers of the epochs still to do, report progress, and end early when the run is to stop.

    Parameters
    ----------
    total : int
        How many epochs there are in all.
    states : mapping, optional
        Name → model, optimizer, scheduler … (anything with ``state_dict``). They are kept as a checkpoint after an
        epoch, and put back before the first one when an earlier attempt left a checkpoint.
    checkpoint_every : int
        After how many epochs; the last one always.
    job : Recorder, optional
        Where to; default `atelier.current_run`.

    Raises
    ------
    RefusedInput
        ``wrong_checkpoint``: the checkpoint was made of other ``states``.
    SystemExit
        With ``states``, when the run has to give its place away: 75, after the checkpoint. What comes after the loop
        is for the attempt that ends the training.

    Notes
    -----
    The random states of PyTorch (CPU and CUDA), NumPy and `random` are kept too, and what `watch` has counted: on the
    same machine a training that was interrupted ends with the numbers of one that was not, where the operations
    themselves repeat (``torch.use_deterministic_algorithms``). Not kept is what nothing global knows: a generator that
    you made yourself, unless it is among the ``states``, the place within an epoch, and the random states of processes
    other than rank 0.

    Examples
    --------
    >>> for epoch in atelier.torch.epochs(5, {"model": model, "optimizer": optimizer}):  # doctest: +SKIP
    ...     train(model, optimizer)
    """
    run = job or current_run()
    given = dict(states or {})
    first = _restored(run, given) if given else 0
    run.progress(min(first, total), total or None)
    for epoch in range(first, total):
        if run.should_stop():
            break
        yield epoch
        _flush(given)
        done = epoch + 1
        run.progress(done, total)
        if given and _is_first_rank() and (done % checkpoint_every == 0 or done == total or run.should_stop()):
            _keep(run, given, done)
    if given:
        leave_if_preempted(run)


def _is_first_rank() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _watches(states: Mapping[str, Stateful]) -> dict[str, Watch]:
    """Name → watch of those states that are watched optimizers."""
    found = {name: getattr(state, _MARK, None) for name, state in states.items()}
    return {name: watched for name, watched in found.items() if watched is not None}


def _flush(states: Mapping[str, Stateful]) -> None:
    for watched in _watches(states).values():
        watched.flush()


def _keep(run: Recorder, states: Mapping[str, Stateful], done: int) -> None:
    import torch

    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    content = {
        "epochs": done,
        "states": {name: state.state_dict() for name, state in states.items()},
        "watches": {name: watched.state_dict() for name, watched in _watches(states).items()},
        "random": {"cpu": torch.get_rng_state(), "cuda": cuda, **random_state()},
    }
    with tempfile.TemporaryDirectory(prefix="atelier-") as folder:
        path = Path(folder) / STATE
        torch.save(content, path)
        run.checkpoint(path, step=done)


def _restored(run: Recorder, states: Mapping[str, Stateful]) -> int:
    """Put the newest checkpoint into the states; how many epochs were done then."""
    folder = run.resume_from
    if folder is None or not (folder / STATE).exists():
        return 0
    import torch

    content = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    if set(content["states"]) != set(states):
        raise RefusedInput(
            "wrong_checkpoint",
            f"The checkpoint holds {', '.join(sorted(content['states']))}, not {', '.join(sorted(states))}.",
            hint="Give the same names as in the attempt that made it, or submit a new run.",
        )
    for name, state in states.items():
        state.load_state_dict(content["states"][name])
    for name, watched in _watches(states).items():
        if name in content.get("watches", {}):
            watched.load_state_dict(content["watches"][name])
    _put_random_back(content["random"])
    return int(content["epochs"])


def _put_random_back(random: dict[str, Any]) -> None:
    import torch

    torch.set_rng_state(random["cpu"])
    if torch.cuda.is_available() and len(random["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(random["cuda"])
    if "python" in random:
        put_back(random)


def __dir__() -> list[str]:
    return sorted(__all__)
