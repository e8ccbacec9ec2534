"""Seconds for which the work runs, by a clock that nobody can set; noted beside it, for the agent that takes over."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from atelier.local.plain import open_regular

NOTE_S = 1.0
_DIGITS = 20


class WorkTime:
    """Counts from `begin` to `end`. Before that it is what another agent of the attempt has noted, None without one.

    Parameters
    ----------
    note : Path
        The file where it is noted every `NOTE_S`. It may be a second behind when the agent is killed.
    clock : callable
        Seconds from any moment on.
    """

    def __init__(self, note: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = note, clock
        self._began: float | None = None
        self._total_s = _noted(note)
        self._ended = threading.Event()

    @property
    def seconds(self) -> float | None:
        """How long the work has run until now; None when it has not begun."""
        began = self._began
        return self._total_s if began is None or self._ended.is_set() else self._clock() - began

    def begin(self) -> None:
        """The work begins."""
        self._began = self._clock()
        threading.Thread(target=self._note_on, name="work-time", daemon=True).start()

    def end(self) -> None:
        """It has ended, or never began."""
        if self._began is not None and not self._ended.is_set():
            self._total_s = self._clock() - self._began
        self._ended.set()

    def _note_on(self) -> None:
        while True:
            with suppress(OSError):  # the disk is full, or the folder gone: the service hears it all the same
                self._note()
            if self._ended.wait(NOTE_S):
                return

    def _note(self) -> None:
        """Write it in one piece and always as many bytes, so that a kill can't leave a part of it."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(descriptor, f"{self.seconds:0{_DIGITS}.3f}".encode(), 0)
        finally:
            os.close(descriptor)


def _noted(path: Path) -> float | None:
    """What a note says; None where there is none, or the code of the run has put something else there."""
    try:
        with open_regular(path) as stream:
            text = stream.read(_DIGITS).decode("ascii", "replace")
    except OSError:
        return None
    return float(text) if len(text) == _DIGITS and text.replace(".", "", 1).isdecimal() else None
