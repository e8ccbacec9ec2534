"""The log of an attempt on its own disk: what the work prints, up to a limit, then only counted."""

from __future__ import annotations

import os
import threading
from pathlib import Path


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
        self.dropped_bytes = 0

    def write(self, data: bytes) -> None:
        """Append bytes; a full disk drops them like the limit does."""
        with self._lock:
            kept = data[: max(0, self._limit - self._size)]
            try:
                written = os.write(self._descriptor, kept) if kept else 0
            except OSError:
                written = 0
            self._size += written
            self.dropped_bytes += len(data) - written

    def line(self, text: str) -> None:
        """Append a line of text."""
        self.write(f"{text}\n".encode())

    def close(self) -> None:
        """Say what was left out, and let go of the file."""
        if self.dropped_bytes:
            note = f"\n[{self.dropped_bytes} bytes were left out: this log reached its limit of {self._limit} bytes]\n"
            self._limit += len(note)
            dropped, self.dropped_bytes = self.dropped_bytes, 0
            self.write(note.encode())
            self.dropped_bytes = dropped
        os.close(self._descriptor)
