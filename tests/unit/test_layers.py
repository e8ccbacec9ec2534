"""Layers of requirements are used together, made alone, and cleared when nobody has used them for long."""

from __future__ import annotations

import os
import time
from pathlib import Path

from atelier.local.layers import ALONE, SHARED, clear_unused, try_lock

DAY_S = 86400.0


def layer(layers: Path, key: str, *, idle_days: float, is_whole: bool = True) -> Path:
    """A layer that was last used some days ago; its lock."""
    (layers / key / "bin").mkdir(parents=True)
    for suffix in (".lock", ".ready") if is_whole else (".lock",):
        path = layers / f"{key}{suffix}"
        path.touch()
        then = time.time() - idle_days * DAY_S
        os.utime(path, (then, then))
    return layers / f"{key}.lock"


def test_a_lock_is_shared_or_held_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    first, second = try_lock(path, SHARED), try_lock(path, SHARED)
    assert first is not None
    assert second is not None
    assert try_lock(path, ALONE) is None
    first.close()
    second.close()
    alone = try_lock(path, ALONE)
    assert alone is not None
    assert try_lock(path, SHARED) is None
    alone.close()


def test_only_what_nobody_has_used_for_long_goes(tmp_path: Path) -> None:
    layer(tmp_path, "old", idle_days=31)
    layer(tmp_path, "torn", idle_days=31, is_whole=False)
    layer(tmp_path, "new", idle_days=29)
    used = try_lock(layer(tmp_path, "used", idle_days=31), SHARED)
    made = try_lock(layer(tmp_path, "made", idle_days=31, is_whole=False), ALONE)
    assert used is not None
    assert made is not None
    with used, made:
        assert clear_unused(tmp_path, 30 * DAY_S) == 2
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"new", "new.lock", "new.ready", "used", "used.lock", "used.ready", "made", "made.lock"}
    assert clear_unused(tmp_path / "none", 30 * DAY_S) == 0


def test_a_lock_that_was_removed_is_nobodys(tmp_path: Path) -> None:
    """Who has opened the file before it was removed must not believe that he holds the layer that is made after it."""
    path = layer(tmp_path, "old", idle_days=31)
    with path.open("a") as opened:
        path.unlink()
        assert try_lock(Path(f"/proc/self/fd/{opened.fileno()}"), SHARED) is None
    again = try_lock(path, ALONE)
    assert again is not None
    again.close()
