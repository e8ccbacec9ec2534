"""Has the interpreter of a work note the error that nothing caught, so that no printed text is taken for one.

The folder is put before all others of the work's first interpreter, which then imports its ``sitecustomize``. That
takes the folder out again, and nothing of the work sees it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from atelier.local.plain import open_regular

NOTE = "ATELIER_UNCAUGHT"
"""The environment variable that says where to note it."""

END_BYTES = 64 << 10
"""So much of either end of a note is read."""


def noting(environment: Mapping[str, str], note: Path) -> dict[str, str]:
    """An environment in which an interpreter notes its uncaught error in a file."""
    paths = [str(Path(__file__).parent), environment.get("PYTHONPATH", "")]
    return {**environment, NOTE: str(note), "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def noted(note: Path) -> str | None:
    """The traceback of the error that nothing caught; empty where there was none, None where that is not known.

    It is not known of an interpreter that was killed, or whose code has taken the telling of errors upon itself.
    """
    try:
        with open_regular(note) as stream:
            return _ends_of(stream).decode(errors="replace")
    except OSError:
        return None


def _ends_of(stream: BinaryIO) -> bytes:
    """What a note holds; of a long one the head, where it was raised, and the tail."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    if size <= 2 * END_BYTES:
        return stream.read(2 * END_BYTES)
    head = stream.read(END_BYTES)
    stream.seek(size - END_BYTES)
    return head + f"[… {size - 2 * END_BYTES} bytes are left out …]".encode() + stream.read(END_BYTES)
