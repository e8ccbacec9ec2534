"""Names of files that survive a loss of power; their bytes are synced by whoever writes them."""

from __future__ import annotations

import os
from pathlib import Path


def put_in_place(part: Path, target: Path) -> None:
    """Rename a synced file, in one step; its new name is durable when this returns."""
    os.replace(part, target)
    sync_folder(target.parent)


def make_folders(folder: Path) -> None:
    """Make a private folder and those above it that are missing; their names are durable when this returns."""
    missing = [folder] if not folder.exists() else []
    while missing and not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for made in reversed(missing):
        sync_folder(made.parent)


def sync_folder(folder: Path) -> None:
    """Make a folder's names durable; nothing when it was removed meanwhile, and they with it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
