"""What a work left in its working directory: new and changed files, capped and listed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from atelier.agent.place import open_regular

MOST_FILES = 10_000
LONGEST_PATH = 1024
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
    """Paths of new and changed files below ``root``, sorted, and how many more there were than are kept.

    A note that the work has spoilt counts as none: then all files are new.
    """
    try:
        with open_regular(note) as stream:
            before = dict(json.load(stream))
    except (OSError, ValueError, TypeError, RecursionError):
        before = {}
    found = sorted(path for path, size, changed in _files(root) if before.get(path) != [size, changed])
    return found[:MOST_FILES], max(0, len(found) - MOST_FILES)


def _files(root: Path) -> Iterator[tuple[str, int, int]]:
    """Plain files with size and time of change; not recursive, for a run may nest folders without end."""
    pending = [str(root)]
    while pending:
        for entry in _entries(pending.pop()):
            path = os.path.relpath(entry.path, root).replace(os.sep, "/")
            if len(os.fsencode(path)) > LONGEST_PATH:
                continue
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in _SKIPPED_FOLDERS:
                    pending.append(entry.path)
            elif entry.is_file(follow_symlinks=False) and not entry.name.endswith(_SKIPPED_SUFFIXES):
                status = _status(entry)
                if status is not None:
                    yield path, status.st_size, status.st_mtime_ns


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:  # gone meanwhile, or closed to us
        return []


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except OSError:
        return None
