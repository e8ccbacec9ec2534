"""What a work left in its working directory: new and changed files, capped and listed."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from atelier.agent.place import open_regular

MOST_FILES = 10_000
LONGEST_PATH = 1024
LONGEST_SHOWN = 80
_KINDS = {stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
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


@dataclass(frozen=True)
class Written:
    """What a work left."""

    paths: list[str]
    """Of new and changed files below the working directory, sorted; those that are text come first."""

    more: int
    """How many such files there are besides."""

    unkept: list[str]
    """What else it left, each with the reason why it can't be kept; sorted."""


def remember(root: Path, note: Path) -> None:
    """Note what is there before the work begins."""
    note.write_text(json.dumps({path: [size, changed] for path, size, changed in _files(root)}))


def written(root: Path, note: Path) -> Written:
    """What is new and changed below ``root``; a note that the work has spoilt counts as none: then all is new."""
    try:
        with open_regular(note) as stream:
            before = dict(json.load(stream))
    except (OSError, ValueError, TypeError, RecursionError):
        before = {}
    unkept: list[str] = []

    def pass_over(path: str, why: str) -> None:
        unkept.append(f"{_shortened(readable(path))} ({why})")

    found = [path for path, size, changed in _files(root, pass_over) if before.get(path) != [size, changed]]
    found.sort(key=lambda path: (readable(path) != path, path))
    return Written(found[:MOST_FILES], max(0, len(found) - MOST_FILES), sorted(unkept))


def readable(path: str) -> str:
    """A path as text that can be sent and read: of bytes that are no UTF-8 each is written as ``%FF``."""
    return "".join(f"%{ord(letter) - 0xDC00:02X}" if "\udc80" <= letter <= "\udcff" else letter for letter in path)


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_SHOWN else f"{name[: LONGEST_SHOWN // 2]}…{name[-LONGEST_SHOWN // 2 :]}"


def _files(
    root: Path, pass_over: Callable[[str, str], object] = lambda path, why: None
) -> Iterator[tuple[str, int, int]]:
    """Plain files with size and time of change; not recursive, for a run may nest folders without end."""
    pending = [str(root)]
    while pending:
        folder = pending.pop()
        try:
            entries = _entries(folder)
        except OSError as problem:
            pass_over(os.path.relpath(folder, root), problem.strerror or "it can't be read")
            continue
        for entry in entries:
            path, status = os.path.relpath(entry.path, root), _status(entry)
            if status is None:
                continue
            is_folder, is_file = stat.S_ISDIR(status.st_mode), stat.S_ISREG(status.st_mode)
            if (not is_file and entry.name in _SKIPPED_FOLDERS) or (
                not is_folder and entry.name.endswith(_SKIPPED_SUFFIXES)
            ):
                continue
            if len(os.fsencode(path)) > LONGEST_PATH:
                pass_over(path, f"its path has more than {LONGEST_PATH} bytes")
            elif is_folder:
                pending.append(entry.path)
            elif is_file:
                yield path, status.st_size, status.st_mtime_ns
            else:
                pass_over(path, _KINDS.get(stat.S_IFMT(status.st_mode), "a device"))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:  # gone meanwhile
        return []


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except OSError:
        return None
