"""The share of the disk that a run may have: its folder is counted now and then, at a cost that stays small."""

from __future__ import annotations

import heapq
import os
import time
from collections.abc import Iterator
from pathlib import Path

from atelier.quantities import format_bytes

PAUSE_S = 1.0
COST_SHARE, WAIT_SHARE = 100, 10
"""Counting takes at most a hundredth of a core, and a tenth of the time: 100,000 files are counted twice a minute."""

NAMED = 3
_BLOCK_BYTES = 512


class DiskShare:
    """Counts what lies below a folder: blocks, as the disk has them; through no link, and each file once.

    Parameters
    ----------
    folder : Path
        The attempt's folder.
    limit_bytes : int
        How much may lie there.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder, self._limit_bytes = folder, limit_bytes
        self._look_at = 0.0
        self._told: str | None = None

    def breach(self) -> str | None:
        """What happened, in a sentence that names the largest files, once there is too much; None before."""
        if self._told is None and time.monotonic() >= self._look_at:
            began, cost_s = time.monotonic(), -time.thread_time()
            self._told = self._look()
            now, cost_s = time.monotonic(), cost_s + time.thread_time()
            self._look_at = now + max(PAUSE_S, COST_SHARE * cost_s, WAIT_SHARE * (now - began))
        return self._told

    def _look(self) -> str | None:
        used_bytes, largest = 0, list[tuple[int, str]]()
        for size_bytes, path in _sizes(str(self._folder)):
            used_bytes += size_bytes
            if len(largest) < NAMED:
                heapq.heappush(largest, (size_bytes, path))
            elif size_bytes > largest[0][0]:
                heapq.heapreplace(largest, (size_bytes, path))
        if used_bytes <= self._limit_bytes:
            return None
        named = ", ".join(f"{self._name(path)} ({format_bytes(size)})" for size, path in sorted(largest, reverse=True))
        used, most = format_bytes(used_bytes), format_bytes(self._limit_bytes)
        return f"The run has {used} on the disk, and may have {most}. Its largest files: {named}."

    def _name(self, path: str) -> str:
        name = os.path.relpath(path, self._folder).removeprefix("work/")
        return os.fsencode(name).decode(errors="replace")


def _sizes(folder: str) -> Iterator[tuple[int, str]]:
    """(bytes, path) of all that is no folder; not recursive, for a run may nest folders without end."""
    pending, linked = [folder], set[tuple[int, int]]()
    while pending:
        for entry in _entries(pending.pop()):
            try:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                    continue
                status = entry.stat(follow_symlinks=False)
            except OSError:  # gone meanwhile
                continue
            place = (status.st_dev, status.st_ino)
            if status.st_nlink > 1 and place in linked:
                continue
            if status.st_nlink > 1:
                linked.add(place)
            yield status.st_blocks * _BLOCK_BYTES, entry.path


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:  # gone meanwhile, or closed to us
        return []
