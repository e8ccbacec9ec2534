"""Has the interpreter of a work note the error that nothing caught, so that no printed text is taken for one.

The folder is put before all others of the work's first interpreter, which then imports its ``sitecustomize``. That
takes the folder out again, and nothing of the work sees it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

NOTE = "ATELIER_UNCAUGHT"
"""The environment variable that says where to note it."""


def noting(environment: Mapping[str, str], note: Path) -> dict[str, str]:
    """An environment in which an interpreter notes its uncaught error in a file."""
    paths = [str(Path(__file__).parent), environment.get("PYTHONPATH", "")]
    return {**environment, NOTE: str(note), "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def noted(note: Path) -> str | None:
    """The traceback of the error that nothing caught; empty where there was none, None where that is not known.

    It is not known of an interpreter that was killed, or whose code has taken the telling of errors upon itself.
    """
    try:
        return note.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
