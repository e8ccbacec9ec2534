"""Checks of what a training loop hands to the recorder: numbers, steps, names and files. Standard library only."""

from __future__ import annotations

import math
import operator
import os
from pathlib import Path
from typing import Any

from atelier.errors import RefusedInput
from atelier.naming import SYSTEM, path_fault

MAX_NAME = 200
MAX_PART_BYTES = 240
_MAX_STEP = 9 * 10**18


def number_of(name: str, value: object) -> float:
    """The float of a number or of a scalar of NumPy, PyTorch or TensorFlow; RefusedInput ``bad_metric`` else."""
    try:
        plain: Any = value.item() if callable(getattr(value, "item", None)) else value  # type: ignore[attr-defined]
        if not isinstance(plain, str | bytes | bytearray):
            return float(plain)
    except (TypeError, ValueError, OverflowError, RuntimeError) as problem:
        raise _nonumber_of(name, value) from problem
    raise _nonumber_of(name, value)


def _nonumber_of(name: str, value: object) -> RefusedInput:
    return RefusedInput(
        "bad_metric",
        f"The value of {name[:50]!r} is no number but {type(value).__name__}.",
        hint="Give one number a name; of an array take .mean() or an element.",
        detail={"name": name[:MAX_NAME], "type": type(value).__name__},
    )


def metric_name(name: str) -> str:
    """The name of a metric, as given; RefusedInput ``bad_metric`` when it is none or a name of the platform's."""
    if name.startswith(SYSTEM):
        raise RefusedInput(
            "bad_metric",
            f"{name[:50]!r} can't be the name of a metric: {SYSTEM} begins the names of what the platform measures.",
            hint="Give it another name, as my_system/…",
            detail={"name": name[:MAX_NAME]},
        )
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise RefusedInput(
            "bad_metric",
            f"{name[:50]!r} can't be the name of a metric.",
            hint=f"Use 1 to {MAX_NAME} printable characters.",
            detail={"name": name[:MAX_NAME]},
        )
    return name


def checked_progress(done: object, total: object) -> tuple[int | float, int | float | None]:
    """How much of how much is done; RefusedInput ``bad_progress`` when a number is not finite, or too small."""
    now = number_of("done", done)
    end = None if total is None else number_of("total", total)
    if not (math.isfinite(now) and now >= 0 and (end is None or (math.isfinite(end) and end > 0))):
        raise RefusedInput(
            "bad_progress",
            f"{done!r} of {total!r} is no progress.",
            hint="Write progress(3, total=5): how much is done, and of how much.",
        )
    return _shortest(now), None if end is None else _shortest(end)


def _shortest(value: float) -> int | float:
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def whole_number(step: object) -> int:
    """The int of a step; RefusedInput ``bad_metric`` when it is none, or does not fit 64 bits."""
    try:
        is_whole_float = isinstance(step, float) and step.is_integer()
        number = int(step) if is_whole_float else operator.index(step)  # type: ignore[arg-type, call-overload]
    except TypeError as problem:
        raise RefusedInput("bad_metric", f"A step is a whole number, not {step!r}.", hint="Give step=3.") from problem
    if abs(number) > _MAX_STEP:
        raise RefusedInput("bad_metric", f"The step is more than {_MAX_STEP}.", hint="Count steps from 0.")
    return number


def existing_path(path: str | os.PathLike[str]) -> Path:
    """The file or folder of that name; RefusedInput ``no_such_file`` or ``not_a_file``."""
    found = Path(path)
    if not found.exists():
        raise RefusedInput(
            "no_such_file", f"There is no file {str(path)!r}.", hint="Write it first, then name it here."
        )
    if not (found.is_file() or found.is_dir()):
        raise RefusedInput("not_a_file", f"{str(path)!r} is no file and no folder.", hint="Name a regular file.")
    return found


def plain_path(name: str) -> str:
    """A relative POSIX path without ``..`` and of printable characters, as given; RefusedInput ``bad_name`` else."""
    parts = name.split("/")
    if (
        any(part in {"", ".", ".."} or len(part.encode("utf-8", "replace")) > 240 for part in parts)
        or not name.isprintable()
        or path_fault(name)
    ):
        raise bad_name(name)
    return name


def bad_name(name: str) -> RefusedInput:
    """The error for a name that can't be one."""
    return RefusedInput(
        "bad_name",
        f"{name[:100]!r} can't be a name here.",
        hint="Use a relative path of printable characters, without '..' and backslashes.",
    )
