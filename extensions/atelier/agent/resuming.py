"""The checkpoint that an attempt goes on from: the newest whole one, brought to this disk.

One is skipped when it is not there, or is not what was stored. What can't be read now says nothing of it, and is read
again: else a passing fault of the storage would cost the work of hours.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atelier.agent.place import Place, fetch, sha256_of
from atelier.agent.retrying import PATIENCE_S, until_answered
from atelier.errors import Unreachable
from atelier.local.disk import is_full
from atelier.quantities import format_duration
from atelier.recorder.spool import unlike_manifest

PATIENCES = 15.0
"""So many times ``limits.patience`` a storage is asked again before the attempt ends; a service that is away, ever."""

_GONE = frozenset({404, 410})


@dataclass
class Checkpoints:
    """The checkpoints of a run, as the service tells of them.

    Parameters
    ----------
    told : list
        Them, the newest first; each with its files' URLs.
    ask : callable
        The same told anew: URLs go out of date. Raises `Unreachable` while the service is away.
    is_over : callable
        Whether the attempt was told to stop: nothing is brought any more.
    warn : callable
        Takes what the user is to know.
    patience_s : float
        How long a service, or a storage, fails before the user is told.
    """

    told: list[dict[str, Any]]
    ask: Callable[[], list[dict[str, Any]]]
    is_over: Callable[[], bool]
    warn: Callable[[str], object]
    patience_s: float = PATIENCE_S
    _is_outdated: bool = field(default=False, init=False)

    def bring(self, place: Place) -> Path | None:
        """The newest whole one, on this disk; one that is not whole is skipped and named.

        Raises
        ------
        OSError
            This disk is full.
        Unreachable
            The storage could not be read for `PATIENCES`.
        """
        for step in [each["step"] for each in self.told]:
            folder = place.run / "resume" / f"step-{step:010d}"
            wrong = self._tried(step, folder)
            if not wrong:
                return None if wrong is None else folder
            shutil.rmtree(folder, ignore_errors=True)
            self.warn(f"The checkpoint of step {step} is not whole and was skipped: {wrong}.")
        return None

    def _tried(self, step: int, folder: Path) -> str | None:
        """What is wrong with a checkpoint, empty when it was brought; None when it isn't wanted any more."""
        most_s = PATIENCES * self.patience_s
        until = time.monotonic() + most_s
        try:
            return until_answered(
                lambda: self._brought(step, folder),
                self.is_over,
                is_let_go=lambda: time.monotonic() > until,
                tell=lambda problem: self.warn(f"{problem.message} It is tried again."),
                patience_s=self.patience_s,
            )
        except Unreachable as problem:
            words = f"{problem.message} It was tried for {format_duration(most_s)}; nothing of the run was begun anew."
            raise Unreachable(problem.code, words) from problem

    def _brought(self, step: int, folder: Path) -> str:
        if self._is_outdated:
            self.told = self.ask()
        self._is_outdated = True
        known = {each["step"]: each["files"] for each in self.told}
        if step not in known:
            return "the service knows it no more"
        try:
            wrong = _wrong(known[step], folder)
        except OSError as problem:
            if is_full(problem):
                raise
            words = f"The checkpoint of step {step} can't be read now: {problem.strerror or problem}."
            raise Unreachable("storage_failing", words) from problem
        self._is_outdated = False
        return wrong


def _wrong(files: list[Mapping[str, Any]], folder: Path) -> str:
    """Bring a checkpoint's files to a folder; what is wrong with them, empty when nothing is.

    Raises
    ------
    OSError
        One can't be read now, or this disk takes it not.
    """
    digests = {}
    for file in files:
        path, target = file["path"], folder / file["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            fetch(file["url"], target)
        except OSError as problem:
            if isinstance(problem, (FileNotFoundError, NotADirectoryError)) or getattr(problem, "code", 0) in _GONE:
                return f"{path} is missing"
            raise
        digests[path] = sha256_of(target)
        if digests[path] != file["sha256"]:
            return f"{path} is not what was stored"
    return unlike_manifest(folder, digests)
