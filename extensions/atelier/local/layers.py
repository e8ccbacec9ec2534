"""Layers of requirements, one a content: ``<key>/``, ``<key>.ready`` when it is whole, and ``<key>.lock``.

Who uses a layer holds its lock shared until his process ends; who makes or removes one holds it alone.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from pathlib import Path
from typing import IO

SHARED = fcntl.LOCK_SH
ALONE = fcntl.LOCK_EX


def try_lock(path: Path, kind: int) -> IO[str] | None:
    """The open file of a lock that was to be had at once, `SHARED` or `ALONE`; closing it gives it back."""
    stream = path.open("a")
    try:
        fcntl.flock(stream, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        return None
    if os.fstat(stream.fileno()).st_nlink == 0:  # removed with its layer between the opening and the lock
        stream.close()
        return None
    return stream


def clear_unused(layers: Path, age_s: float) -> int:
    """Remove the layers that were last taken into use longer than ``age_s`` ago and that nobody uses; how many."""
    return sum(_clear(lock, age_s) for lock in sorted(layers.glob("*.lock")))


def _clear(lock: Path, age_s: float) -> bool:
    if _idle_s(lock) < age_s:
        return False
    held = try_lock(lock, ALONE)
    if held is None:
        return False
    with held:
        if _idle_s(lock) < age_s:  # somebody took it before the lock was ours
            return False
        lock.with_suffix(".ready").unlink(missing_ok=True)
        if lock.with_suffix("").exists():
            shutil.rmtree(lock.with_suffix(""))
        lock.unlink()
    return True


def _idle_s(lock: Path) -> float:
    """Seconds since a layer's last use; of one that never became whole, since its lock was made."""
    for path in (lock.with_suffix(".ready"), lock):
        if path.exists():
            return time.time() - path.stat().st_mtime
    return 0.0
