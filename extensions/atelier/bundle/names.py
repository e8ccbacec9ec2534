"""Which paths a file of a bundle can have; apart from what is left out, for the agent unpacks and knows no records."""

from __future__ import annotations

import os

MOST_PATH_BYTES = 3500
MOST_NAME_BYTES = 255


def is_too_long(path: str) -> bool:
    """Whether no folder of a run could hold a file of that path: Linux takes 4096 bytes, of which it begins some."""
    names = os.fsencode(path).split(b"/")
    return len(os.fsencode(path)) > MOST_PATH_BYTES or any(len(name) > MOST_NAME_BYTES for name in names)


def no_name(path: str) -> str | None:
    """Why no file of a bundle can have that path, as the files that can't; None for one that can."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "files whose names are not UTF-8"
    return "files whose paths are too long" if is_too_long(path) else None
