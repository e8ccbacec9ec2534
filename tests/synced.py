"""What a program has synced, as a loss of power would leave it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


class Synced:
    """Notes what is synced from now on: the inodes of files, and the names in each folder at that moment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files: set[int] = set()
        self.names: dict[Path, set[str]] = {}
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self._note)

    def outlives(self, path: Path) -> bool:
        """Whether a file would be there, and whole, after a loss of power."""
        return path.stat().st_ino in self.files and path.name in self.names.get(path.parent, ())

    def _note(self, descriptor: int) -> None:
        self._fsync(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_dir():
            self.names[path] = set(os.listdir(path))
        else:
            self.files.add(os.fstat(descriptor).st_ino)
