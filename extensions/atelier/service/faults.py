"""What is wrong with a request, in plain sentences: pydantic's own name classes and branches that no caller knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MOST_TOLD = 5
_MOST_SHOWN = 60


def in_words(faults: Sequence[Mapping[str, Any]]) -> str:
    """The first faults of a validation, as `pydantic.ValidationError.errors` gives them."""
    return " ".join(f"{_sentence(fault)}." for fault in faults[:MOST_TOLD])


def _sentence(fault: Mapping[str, Any]) -> str:
    name = next((part for part in reversed(fault["loc"][1:]) if isinstance(part, str)), "The body")
    if fault["type"] == "missing":
        return f"{name} is missing"
    if fault["type"] == "extra_forbidden":
        return f"{name} is not known here"
    message = str(fault["msg"])
    if not message.startswith("Input should"):
        return f"{name}: {message}"
    told = repr(fault["input"])
    given = told if len(told) <= _MOST_SHOWN else f"{told[:_MOST_SHOWN]}…"
    return f"{name} can't be {given}: it {message.removeprefix('Input ')}"
