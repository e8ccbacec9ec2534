"""The memory of a work: held to its limit by the kernel where the work has a control group, else by looking often."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from atelier.local.cgroups import ControlGroup
from atelier.quantities import format_bytes

PAUSE_S = 0.2
CLOSE_PAUSE_S = 0.05
CLOSE_PART = 0.6
"""From this part of its limit on the work is looked at more often."""

COST_SHARE = 20
"""A look that took long is followed by a pause of so many times its time."""

SHM = Path("/dev/shm")
SHM_PART = 0.02
"""While files in memory take less than this part of the limit, nobody asks whose they are."""

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_BLOCK_BYTES = 512
_NEAR = 0.98
"""From this part of its limit on it was the work's own limit that ended it: a page may be missing to the whole."""


class MemoryLimit(Protocol):
    """What holds a work to its memory; asked again and again while it runs, and once when it has ended."""

    def breach(self) -> str | None:
        """What happened, in a sentence, once the work has used more than it may; None as long as it hasn't."""
        ...


class GroupMemory:
    """A `MemoryLimit` that the kernel keeps; told from its own counters."""

    def __init__(self, group: ControlGroup, limit_bytes: int) -> None:
        self._group, self._limit_bytes = group, limit_bytes
        self._before = group.oom_kills()

    def breach(self) -> str | None:
        if self._group.oom_kills() <= self._before:
            return None
        peak_bytes = self._group.peak_bytes()
        if peak_bytes is not None and peak_bytes < _NEAR * self._limit_bytes:
            own, most = format_bytes(peak_bytes), format_bytes(self._limit_bytes)
            return f"The computer ran out of memory while the run used {own} of the {most} that its machine has."
        return sentence(self._limit_bytes if peak_bytes is None else peak_bytes, self._limit_bytes)


class WatchedMemory:
    """A `MemoryLimit` that is kept by looking: a work that takes much at once has more for a moment.

    Pages that several of its processes share count once. Of files in ``/dev/shm`` those count that one of its processes
    has or had open; one that is written and closed between two looks is nobody's.

    Parameters
    ----------
    find : callable
        Gives the ids of the work's processes.
    limit_bytes : int
        How much they may use together.
    """

    def __init__(self, find: Callable[[], Iterable[int]], limit_bytes: int) -> None:
        self._find, self._limit_bytes = find, limit_bytes
        self._look_at = 0.0
        self._peak_bytes = 0
        self._files: dict[int, tuple[str, int]] = {}

    def breach(self) -> str | None:
        began = time.monotonic()
        if began >= self._look_at:
            used_bytes = self._used_bytes()
            self._peak_bytes = max(self._peak_bytes, used_bytes)
            took_s = time.monotonic() - began
            pause_s = CLOSE_PAUSE_S if used_bytes > CLOSE_PART * self._limit_bytes else PAUSE_S
            self._look_at = began + took_s + max(pause_s, COST_SHARE * took_s)
        return sentence(self._peak_bytes, self._limit_bytes) if self._peak_bytes > self._limit_bytes else None

    def _used_bytes(self) -> int:
        """What the work uses; the exact number, which costs a walk through its pages, only where it may be too much."""
        pids = list(self._find())
        files_bytes = self._files_bytes(pids)
        at_most = sum(map(_resident_bytes, pids)) + files_bytes
        if at_most <= self._limit_bytes:
            return at_most
        parts = [_parts(pid) for pid in pids]
        shared_bytes = sum(part.get("Pss_Shmem", 0) for part in parts)
        return sum(part.get("Pss", 0) for part in parts) - shared_bytes + max(shared_bytes, files_bytes)

    def _files_bytes(self, pids: Iterable[int]) -> int:
        """How much the work's files in memory take, those included that it has closed but not removed."""
        with contextlib.suppress(OSError):
            space = os.statvfs(SHM)
            if (space.f_blocks - space.f_bfree) * space.f_frsize < SHM_PART * self._limit_bytes:
                return 0
        kept = {inode: _status(path) for inode, (path, _) in self._files.items()}
        self._files = {
            inode: (self._files[inode][0], status.st_blocks * _BLOCK_BYTES)
            for inode, status in kept.items()
            if status is not None and status.st_ino == inode
        }
        for pid in pids:
            self._files |= _open_files(pid)
        return sum(size_bytes for _, size_bytes in self._files.values())


def sentence(used_bytes: int, limit_bytes: int) -> str:
    """What is told of a work that used too much."""
    used, most = format_bytes(used_bytes), format_bytes(limit_bytes)
    if used_bytes <= limit_bytes or used == most:
        return f"The run used all the memory that its machine has, {most}, and needed more."
    return f"The run used {used} of memory, and its machine has {most}."


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0


def _parts(pid: int) -> dict[str, int]:
    """Bytes of a process's memory by kind; what it shares counts for its part of those who share it."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    return {name: int(size.split()[0]) * 1024 for name, _, size in (line.partition(":") for line in lines)}


def _open_files(pid: int) -> dict[int, tuple[str, int]]:
    """Files in memory that a process has open or mapped: inode → (path, bytes that they take)."""
    found: dict[int, tuple[str, int]] = {}
    for folder, is_followed in ((f"/proc/{pid}/fd", True), (f"/proc/{pid}/map_files", False)):
        for entry, path in _links(folder):
            # what is mapped may be looked at by its name only; without one it counts as a part of the process
            status = _status(entry if is_followed else path, follow=is_followed)
            if status is not None:
                found[status.st_ino] = path, status.st_blocks * _BLOCK_BYTES
    return found


def _links(folder: str) -> list[tuple[str, str]]:
    """(link, where it leads) of the links in a folder that lead to files in memory."""
    links = []
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                links.append((f"{folder}/{name}", os.readlink(f"{folder}/{name}")))
    return [(link, path) for link, path in links if path.startswith(f"{SHM}/")]


def _status(path: str, *, follow: bool = False) -> os.stat_result | None:
    try:
        return os.stat(path, follow_symlinks=follow)
    except OSError:
        return None
