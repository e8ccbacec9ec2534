"""What a work left in its working directory: new and changed files, capped and listed."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atelier.local.plain import read_small

MOST_FILES = 10_000
MOST_NOTE_BYTES = 256 << 20
LONGEST_PATH = 1024
LONGEST_SHOWN = 80
_KINDS = {stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
_SILENT_FOLDERS = frozenset({"__pycache__"})
_TOOLS_FOLDERS = frozenset(
    {
        ".atelier",
        ".cache",
        ".git",
        ".ipynb_checkpoints",
        ".mypy_cache",
        ".pytest_cache",
        ".venv",
        "node_modules",
        "venv",
    }
)
"""What environments and tools keep for themselves. All else that a run writes may be a result, however it is called."""


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
    before: dict[str, Any] = {}
    files = _files(root, leave_out=lambda folder, changed: before.update({f"{folder}/": changed}))
    before |= {path: [size, changed] for path, size, changed in files}
    note.write_text(json.dumps(before))


def written(root: Path, note: Path) -> Written:
    """What is new and changed below ``root``; a note that the work has spoilt counts as none: then all is new."""
    try:
        before = dict(json.loads(read_small(note, MOST_NOTE_BYTES)))
    except (OSError, ValueError, TypeError, RecursionError):
        before = {}
    unkept: list[str] = []

    def pass_over(path: str, why: str) -> None:
        unkept.append(f"{_shortened(readable(path))} ({why})")

    def leave_out(folder: str, changed: int) -> None:
        if before.get(f"{folder}/") != changed:
            pass_over(folder, "an environment's or a tool's own folder")

    files = _files(root, pass_over, leave_out=leave_out)
    found = [path for path, size, changed in files if before.get(path) != [size, changed]]
    found.sort(key=lambda path: (readable(path) != path, path))
    return Written(found[:MOST_FILES], max(0, len(found) - MOST_FILES), sorted(unkept))


def readable(path: str) -> str:
    """A path as text that can be sent and read: of bytes that are no UTF-8 each is written as ``%FF``."""
    return "".join(f"%{ord(letter) - 0xDC00:02X}" if "\udc80" <= letter <= "\udcff" else letter for letter in path)


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_SHOWN else f"{name[: LONGEST_SHOWN // 2]}…{name[-LONGEST_SHOWN // 2 :]}"


def _files(
    root: Path,
    pass_over: Callable[[str, str], object] = lambda path, why: None,
    *,
    leave_out: Callable[[str, int], object],
) -> Iterator[tuple[str, int, int]]:
    """Plain files with size and time of change; not recursive, for a run may nest folders without end.

    ``pass_over`` gets what can't be kept, and why; ``leave_out`` the folders that hold no results, and their times.
    """
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
            if is_folder and entry.name in _SILENT_FOLDERS:
                continue
            if is_folder and entry.name in _TOOLS_FOLDERS:
                leave_out(path, status.st_mtime_ns)
            elif len(os.fsencode(path)) > LONGEST_PATH:
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
