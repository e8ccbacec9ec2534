"""What names and how much of what a run tells the service takes, so that nobody else takes more."""

from __future__ import annotations

import json

from atelier.errors import RefusedInput

LONGEST_PATH_BYTES = 1024
LONGEST_PART_BYTES = 255
MOST_BODY_BYTES = 8 << 20
"""The most bytes of one request; of a checkpoint or a model its list of files is sent by one."""

MOST_LISTED_BYTES = MOST_BODY_BYTES - (1 << 20)
"""What such a list may take of it: the rest is for what else is told, as the card of a model."""

SYSTEM = "system/"
"""Begins the names of the curves that every run has by itself: how it used the machine."""

MOST_WARNINGS = 100
"""As many as the service takes at once, and as a run's record holds."""

MOST_CODE_WARNINGS = 50
"""As many of them may be the code's own: the platform's have room beside them."""


def path_fault(path: str) -> str:
    """Why a path names no place below a root; empty when it does."""
    parts, size = path.split("/"), len(path.encode(errors="surrogateescape"))
    if any(part in {"", ".", ".."} for part in parts):
        return "it is not a relative path, or has an empty part, '.' or '..'"
    if size > LONGEST_PATH_BYTES or any(
        len(part.encode(errors="surrogateescape")) > LONGEST_PART_BYTES for part in parts
    ):
        return f"it has more than {LONGEST_PATH_BYTES} bytes, or a part of it more than {LONGEST_PART_BYTES}"
    if any(ord(letter) < 32 or letter == "\\" for letter in path):
        return "it has a control character or a backslash"
    return ""


def readable(path: str) -> str:
    """A path as text that can be sent and read: of bytes that are no UTF-8 each is written as ``%FF``."""
    return "".join(f"%{ord(letter) - 0xDC00:02X}" if "\udc80" <= letter <= "\udcff" else letter for letter in path)


def check_kept(path: str) -> None:
    """Refuse what can't be the path of an artifact, as it is written there.

    Raises
    ------
    RefusedInput
        ``bad_name``.
    """
    if fault := path_fault(readable(path)):
        raise _unfit(path, fault)


def check_listed(paths: list[str]) -> None:
    """Refuse files that can't all be in one checkpoint or model.

    Raises
    ------
    RefusedInput
        ``bad_name``; ``too_many_files`` when the list of them is more than one request may have.
    """
    for path in paths:
        if fault := path_fault(path) or ("" if readable(path) == path else "it is not UTF-8"):
            raise _unfit(path, fault)
    listed_bytes = sum(map(_listed_bytes, paths))
    if listed_bytes > MOST_LISTED_BYTES:
        raise RefusedInput(
            "too_many_files",
            f"These are {len(paths)} files, whose list takes {listed_bytes} bytes; it may take {MOST_LISTED_BYTES}.",
            hint="Put many small files into one, as a tar or zip file, and give that.",
            detail={"files": len(paths), "listed_bytes": listed_bytes},
        )


def _listed_bytes(path: str) -> int:
    """What a file takes at most in the list that is sent."""
    return len(json.dumps({"path": path, "size_bytes": 2**53, "sha256": "0" * 64, "kind": ""})) + len(", ")


def _unfit(path: str, fault: str) -> RefusedInput:
    return RefusedInput(
        "bad_name", f"{readable(path)[:200]!r} can't be kept: {fault}.", hint="Give the file another name."
    )
