"""What a path below a root may look like; anything else is refused before a file system sees it.

A path names a place below a root: relative, POSIX, UTF-8. Nothing is decoded or normalised away, so ``%2e%2e`` is
only an odd file name, and ``..`` is refused instead of being resolved.
"""

from __future__ import annotations

import unicodedata

from atelier.errors import RefusedInput

MAX_PATH_BYTES = 4096
"""PATH_MAX of Linux."""

MAX_NAME_BYTES = 255
"""NAME_MAX of every usual file system."""

_ROOT_FAMILIES = ("datasets", "runs")


def split_path(path: str) -> tuple[str, ...]:
    """The names in a path below a root; ``""``, ``"."`` and ``"/"``-free repetitions of them are the root itself.

    Raises
    ------
    RefusedInput
        ``bad_path``: absolute, ``..``, NUL or another control character, not UTF-8, or too long.
    """
    if path.startswith("/"):
        raise bad_path(path, "is absolute", "Write it relative to the root, as in 'images/cat.png'.")
    names = tuple(name for name in path.split("/") if name not in ("", "."))
    if ".." in names:
        raise bad_path(path, "contains '..'", "A path only leads down from its root.")
    problem = _unfit(path, MAX_PATH_BYTES) or next(filter(None, (name_problem(name) for name in names)), "")
    if problem:
        raise bad_path(path, problem, "Rename the file, or write the path as the listing shows it.")
    return names


def name_problem(name: str) -> str:
    """Why a name can't be part of a path, as the rest of a sentence; empty when it can."""
    return _unfit(name, MAX_NAME_BYTES)


def split_root(root_path: str) -> tuple[str, str]:
    """Root and path of a text as users write it: ``home/a.csv``, ``datasets/samples/x.png``, ``runs/r-…/model.pt``.

    Raises
    ------
    RefusedInput
        ``unknown_root``: it does not begin with ``home``, ``datasets/<name>`` or ``runs/<id>``.
    """
    first, _, rest = root_path.partition("/")
    if first == "home":
        return first, rest
    name, _, path = rest.partition("/")
    if first in _ROOT_FAMILIES and name:
        return f"{first}/{name}", path
    raise unknown_root(root_path)


def unknown_root(root: str) -> RefusedInput:
    """The error for a root that nobody serves."""
    return RefusedInput(
        "unknown_root",
        f"{root!r} does not begin with the name of a root.",
        hint="Begin with home/, datasets/<name>/ or runs/<id>/.",
    )


def bad_path(path: str, problem: str, hint: str) -> RefusedInput:
    """The error for a path that is refused before anything is opened."""
    shown = path if len(path) <= 200 else path[:200] + "…"
    return RefusedInput("bad_path", f"The path {shown!a} {problem}.", hint=hint)


def _unfit(text: str, limit_bytes: int) -> str:
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError:
        return "is not valid UTF-8"
    if size_bytes > limit_bytes:
        return f"is longer than {limit_bytes} bytes"
    if any(unicodedata.category(letter) == "Cc" for letter in text):
        return "contains a control character"
    return ""
