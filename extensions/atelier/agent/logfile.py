"""The log of an attempt on its own disk: what the work prints, up to a limit, then only counted.

A log never takes the last room of a disk. When there is little the newest lines wait in memory, and are written when
there is more; the last ones of all, which tell how the work ended, have room of their own.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from atelier.crash_points import crash_point

WAITING_BYTES = 64 << 10
"""The most that waits for room, and the room that is held for it."""

LEFT_BYTES = 64 << 20
LEFT_PART = 20
"""So much is left free for the service, which stores the log too; on a small disk one part of so many."""


class LogFile:
    """Appends to the spool's log. Thread-safe; bytes over the limit are dropped and counted, never an error.

    Parameters
    ----------
    path : Path
        The file.
    limit_bytes : int
        How many bytes are kept.
    """

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._descriptor).st_size
        self._limit = limit_bytes
        self._lock = threading.Lock()
        self._waiting = b""
        self._room = path.with_name(f".{path.name}-room")
        with contextlib.suppress(OSError):  # a disk that is full from the start
            self._room.write_bytes(bytes(WAITING_BYTES))
        self.dropped_bytes = 0
        """Bytes over the limit that were left out."""
        self.lost_bytes = 0
        """Bytes that a full disk has cost."""

    def write(self, data: bytes) -> None:
        """Append bytes, after those that wait for room."""
        with self._lock:
            kept = data[: max(0, self._limit - self._size - len(self._waiting))]
            self.dropped_bytes += len(data) - len(kept)
            if kept:
                self._waiting += kept
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
                written = os.write(self._descriptor, self._waiting)
                crash_point("agent.log.after")
                self._size += written
                self._waiting = self._waiting[written:]

    def line(self, text: str) -> None:
        """Append a line of text."""
        self.write(f"{text}\n".encode())

    def close(self) -> None:
        """Write what waits, in the room that is held for it, say what was left out, and let go of the file."""
        with self._lock:
            with contextlib.suppress(OSError):
                self._room.unlink()
            self._flush()
            self.lost_bytes += len(self._waiting)
            self._waiting = b""
        if self.dropped_bytes:
            note = f"\n[{self.dropped_bytes} bytes were left out: this log reached its limit of {self._limit} bytes]\n"
            self._limit += len(note)
            dropped, self.dropped_bytes = self.dropped_bytes, 0
            self.write(note.encode())
            self.dropped_bytes = dropped
        os.close(self._descriptor)
