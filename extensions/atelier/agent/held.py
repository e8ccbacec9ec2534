"""Files of the spool that are held open from their beginning: what a run does to their names takes nothing away."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


class HeldFile:
    """A growing file, read from a descriptor that stays the same whatever its name leads to.

    Parameters
    ----------
    path : Path
        The file; it is made where there is none.
    complain : callable
        Gets a sentence, once, when a part of it is lost.
    """

    def __init__(self, path: Path, complain: Callable[[str], object]) -> None:
        self._path, self._complain = path, complain
        self._descriptor = -1
        self._is_read = self._is_told = False

    def hold(self) -> bool:
        """Open it unless it is; whether there is something to read."""
        if self._descriptor < 0:
            self._descriptor = self._open(os.O_CREAT)
        return self._descriptor >= 0

    @property
    def size_bytes(self) -> int:
        """How much it holds now."""
        return os.fstat(self._descriptor).st_size if self.hold() else 0

    @property
    def path(self) -> Path:
        """Where other processes can open it, for as long as this one lives."""
        return Path(f"/proc/{os.getpid()}/fd/{self._descriptor}")

    def reader(self) -> BinaryIO:
        """A stream of what it holds now; one at a time."""
        return open(self._descriptor, "rb", closefd=False)

    def go_on(self, place: int) -> int:
        """Where to read on instead of at a place that there is no more: at the beginning of a file that was emptied.

        One that never was as long, for all that is known of it here, is read on at its end.
        """
        size = self.size_bytes
        if place > size:
            self._tell("was cut short while the run went on: a part of what it held may be lost")
            place = 0 if self._is_read else size
        self._is_read = True
        return place

    def follow_name(self) -> None:
        """Look whether something else has the name now, which the code in the run would write to unseen.

        As long as this one is empty, the other one is taken instead.
        """
        try:
            named, held = self._path.lstat(), os.fstat(self._descriptor)
        except OSError:
            return
        is_file = stat.S_ISREG(named.st_mode)
        if os.path.samestat(named, held) or (is_file and not named.st_size):
            return
        if held.st_size or not is_file:
            self._tell("was replaced by the run: what was told there since then is not in its record")
        elif (other := self._open(0)) >= 0:
            os.close(self._descriptor)
            self._descriptor = other

    def _open(self, more: int) -> int:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | more, 0o600)
        except OSError as problem:
            if os.path.lexists(self._path):
                self._tell(f"can't be read: {problem.strerror}")
            return -1
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        self._tell("can't be read: it is no plain file")
        return -1

    def _tell(self, words: str) -> None:
        if not self._is_told:
            self._is_told = True
            self._complain(f"The file {self._path.name} in the run's spool {words}.")
