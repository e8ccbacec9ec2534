"""Room that is kept free beside the database, so that runs can still be ended and removed when the disk is full."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy.exc import DBAPIError

from atelier.local.disk import is_full

RESERVE_BYTES = 8 << 20
PART_BYTES = 1 << 20
"""What is given away at once: the work that fills the disk takes some of it, too."""

_SQLITE_FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})
_POSTGRES_FULL = "53100"

Answer = TypeVar("Answer")


def is_disk_full(problem: BaseException) -> bool:
    """Whether an error of the operating system or of a database says that a disk is full."""
    if isinstance(problem, DBAPIError):
        code, state = getattr(problem.orig, "sqlite_errorcode", None), getattr(problem.orig, "sqlstate", None)
        return code in _SQLITE_FULL or state == _POSTGRES_FULL
    return isinstance(problem, OSError) and is_full(problem)


class Reserve:
    """A file that only holds room. Thread-safe.

    Parameters
    ----------
    path : Path, optional
        The file, on the database's disk; None for a database that lies elsewhere.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self.refill()

    def use(self, call: Callable[[], Answer]) -> Answer:
        """What a call answers that must succeed on a full disk; it is tried again with more and more room.

        Raises
        ------
        OSError, DBAPIError
            The disk is full, and what was held is used up, or doesn't lie on that disk.
        """
        while True:
            try:
                return call()
            except (OSError, DBAPIError) as problem:
                if not is_disk_full(problem) or not self._give():
                    raise

    def _give(self) -> bool:
        """Free a part of what is held; False when there is nothing, or the disk is not the full one."""
        with self._lock:
            size = self._size()
            if self._path is None or size == 0 or shutil.disk_usage(self._path.parent).free > 2 * PART_BYTES:
                return False
            os.truncate(self._path, max(0, size - PART_BYTES))
            return True

    def refill(self) -> None:
        """Hold all of it again, once there is much more room than that; nothing when it is whole."""
        with self._lock:
            if self._path is None or self._size() >= RESERVE_BYTES:
                return
            with contextlib.suppress(OSError):  # somebody took the room meanwhile; the next pass tries again
                if shutil.disk_usage(self._path.parent).free > 3 * RESERVE_BYTES // 2:
                    descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
                    try:
                        os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
                    finally:
                        os.close(descriptor)

    def _size(self) -> int:
        try:
            return self._path.stat().st_size if self._path is not None else 0
        except FileNotFoundError:
            return 0
