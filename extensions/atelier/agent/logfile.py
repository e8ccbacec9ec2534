"""The log of an attempt on its own disk: the first half of what is kept as it comes, the last half at the end.

A log never takes the last room of a disk. When there is little the newest lines wait in memory, and are written when
there is more; the last ones of all, which tell how the work ended, have room of their own.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from atelier.agent.logtail import LogTail
from atelier.crash_points import crash_point
from atelier.quantities import format_bytes

WAITING_BYTES = 64 << 10
"""The most that waits for room, and the room that is held for it."""

LEFT_BYTES = 64 << 20
LEFT_PART = 20
"""So much is left free for the service, which stores the log too; on a small disk one part of so many."""


class LogFile:
    """Appends to the spool's log. Thread-safe; what lies between its two halves is counted, never an error.

    Parameters
    ----------
    path : Path
        The file.
    limit_bytes : int
        How many bytes are kept.
    tail : Path
        The folder of what is appended at the end.
    tell : callable
        Gets a sentence, once, when what comes is shown only then.
    """

    def __init__(
        self, path: Path, limit_bytes: int, *, tail: Path, tell: Callable[[str], object] = lambda words: None
    ) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._descriptor).st_size
        self._head_bytes = limit_bytes - limit_bytes // 2
        self._tail = LogTail(tail, limit_bytes // 2)
        self._tell, self._is_told = tell, False
        self._lock = threading.Lock()
        self._waiting = b""
        self._room = path.with_name(f".{path.name}-room")
        with contextlib.suppress(OSError):  # a disk that is full from the start
            self._room.write_bytes(bytes(WAITING_BYTES))
        self.seen_bytes = 0
        """How much came."""
        self.lost_bytes = 0
        """Bytes that a full disk has cost."""

    @property
    def dropped_bytes(self) -> int:
        """Bytes between the two halves that were left out."""
        return self._tail.dropped_bytes

    def write(self, data: bytes) -> None:
        """Append bytes, after those that wait for room."""
        with self._lock:
            self.seen_bytes += len(data)
            self._waiting += data
            if self._has_room():
                self._flush()
            over = max(0, len(self._waiting) - WAITING_BYTES)
            self._waiting = self._waiting[over:]
            self.lost_bytes += over

    def _has_room(self) -> bool:
        status = os.fstatvfs(self._descriptor)
        return status.f_bavail * status.f_frsize >= min(LEFT_BYTES, status.f_blocks * status.f_frsize // LEFT_PART)

    def _flush(self) -> None:
        with contextlib.suppress(OSError):  # no room: they go on waiting
            while self._waiting:
                crash_point("agent.log.before")
                if self._size < self._head_bytes:
                    written = os.write(self._descriptor, self._waiting[: self._head_bytes - self._size])
                    self._size += written
                else:
                    written = self._tail.write(self._waiting, self._size)
                    self._tell_once()
                crash_point("agent.log.after")
                self._waiting = self._waiting[written:]

    def _tell_once(self) -> None:
        if not self._is_told:
            self._is_told = True
            half = format_bytes(self._head_bytes)
            words = "what is printed from now on is not shown before the run's end, and then only its last part."
            self._tell(f"The log has reached {half}, half of what is kept of it: {words}")

    def line(self, text: str) -> None:
        """Append a line of text."""
        self.write(f"{text}\n".encode())

    def close(self) -> None:
        """Write what waits, in the room that is held for it, then the last half after the first, and let go of it."""
        with self._lock:
            with contextlib.suppress(OSError):
                self._room.unlink()
            self._flush()
            self.lost_bytes += len(self._waiting)
            self._waiting = b""
            self.lost_bytes += self._tail.append_to(self._descriptor)
            os.close(self._descriptor)
