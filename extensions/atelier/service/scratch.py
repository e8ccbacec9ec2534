"""The folder of what the service is receiving or making: empty at each start, made again when somebody removes it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import IO


def clear_scratch(folder: Path) -> None:
    """Remove it, or whatever lies in its place."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)
    else:
        folder.unlink(missing_ok=True)


def scratch_file(folder: Path | None, *, prefix: str = "", suffix: str = "") -> IO[bytes]:
    """A private temporary file that goes when it is closed; in the system's own folder for None."""
    if folder is not None and not folder.is_dir():
        folder.unlink(missing_ok=True)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return tempfile.NamedTemporaryFile(prefix=prefix, suffix=suffix, dir=folder)
