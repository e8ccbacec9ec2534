"""What a work left in its working directory: new and changed files, capped and listed."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

MOST_FILES = 10_000
_SKIPPED_FOLDERS = frozenset(
    {
        "__pycache__",
        ".ipynb_checkpoints",
        ".git",
        ".atelier",
        "node_modules",
        ".venv",
        "venv",
        ".mypy_cache",
        ".pytest_cache",
        ".cache",
    }
)
_SKIPPED_SUFFIXES = (".pyc", ".pyo", ".part", ".tmp", ".lock", "~")


def remember(root: Path, note: Path) -> None:
    """Note what is there before the work begins."""
    note.write_text(json.dumps({path: [size, changed] for path, size, changed in _files(root)}))


def written(root: Path, note: Path) -> tuple[list[str], int]:
    """Paths of new and changed files below ``root``, sorted, and how many more there were than are kept."""
    before = json.loads(note.read_text()) if note.exists() else {}
    found = sorted(path for path, size, changed in _files(root) if before.get(path) != [size, changed])
    return found[:MOST_FILES], max(0, len(found) - MOST_FILES)


def _files(root: Path) -> Iterator[tuple[str, int, int]]:
    for place, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _SKIPPED_FOLDERS]
        for name in names:
            path = os.path.join(place, name)
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode) and not name.endswith(_SKIPPED_SUFFIXES):
                yield os.path.relpath(path, root).replace(os.sep, "/"), status.st_size, status.st_mtime_ns
