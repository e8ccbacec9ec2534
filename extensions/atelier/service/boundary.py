"""Bodies of requests: text that every database and every JSON can carry, refused from users and mended from agents."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import Field, model_validator

from atelier.records import Real, Record

MOST_LEVELS = 100
RanS = Annotated[Real | None, Field(ge=0)]
"""For how many seconds an attempt's work has run, by its agent's own clock; null before it begins."""

_NO_TEXT = re.compile("[\x00\ud800-\udfff]")


class FromUser(Record):
    """A body that a user sends; zero bytes, lone surrogates and numbers that are not finite are refused in it."""

    @model_validator(mode="before")
    @classmethod
    def _carriable(cls, body: Any) -> Any:
        fault = f"it is nested deeper than {MOST_LEVELS} levels" if is_too_deep(body) else _fault(body)
        if fault is not None:
            raise ValueError(fault)
        return body


class FromAgent(Record):
    """A body that an agent sends of what code in a run did; what is no text in it is replaced by U+FFFD.

    Refusing it would lose what the run has to tell, and a run that was told of would break every list that shows it.
    """

    @model_validator(mode="before")
    @classmethod
    def _mended(cls, body: Any) -> Any:
        if is_too_deep(body):
            raise ValueError(f"it is nested deeper than {MOST_LEVELS} levels")
        return _mend(body)


def is_too_deep(value: Any, levels: int = MOST_LEVELS) -> bool:
    """Whether lists and objects are nested deeper than any answer could show again; not recursive itself."""
    layer = [value]
    for _ in range(levels):
        layer = [each for one in layer for each in _inside(one)]
        if not layer:
            return False
    return True


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _fault(value: Any) -> str | None:
    if isinstance(value, str):
        return "a text holds a zero byte or half of a letter" if _NO_TEXT.search(value) else None
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{value} is not a number that JSON has"
    if isinstance(value, dict):
        return next((fault for pair in value.items() for fault in map(_fault, pair) if fault), None)
    if isinstance(value, list):
        return next((fault for fault in map(_fault, value) if fault), None)
    return None


def _mend(value: Any) -> Any:
    if isinstance(value, str):
        return _NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {_mend(key): _mend(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_mend(each) for each in value]
    return value
