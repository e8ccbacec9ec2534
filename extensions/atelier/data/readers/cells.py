"""Values of table cells as JSON that every browser and every parser takes."""

from __future__ import annotations

import datetime
import json
import math
from typing import Any

MAX_CELL_LETTERS = 300
_EXACT_INT = 2**53
_MAX_ITEMS = 20
_MAX_DEPTH = 6


def as_cell(value: Any) -> Any:
    """A value as null, boolean, number or text.

    Not a number and the infinities become the texts ``NaN``, ``Infinity`` and ``-Infinity``; integers that a browser
    can't hold exactly, decimals, dates and times become text; bytes become their count and first bytes; lists and
    maps become JSON text.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) <= _EXACT_INT else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else _odd_float(value)
    if isinstance(value, (list, tuple, dict)):
        return cut(json.dumps(_nested(value, 0), ensure_ascii=False))
    return as_text(value)


def as_text(value: Any) -> str:
    """A value that is no number as text, cut to what a cell shows."""
    if isinstance(value, str):
        return cut(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        content = bytes(value)
        return f"{len(content)} bytes: {content[:16].hex(' ')}" + (" …" if len(content) > 16 else "")
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    return cut(str(value))


def cut(text: str) -> str:
    """Text short enough for a cell, without lone surrogates."""
    short = text if len(text) <= MAX_CELL_LETTERS else text[:MAX_CELL_LETTERS] + "…"
    return short.encode(errors="replace").decode()


def _odd_float(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _nested(value: Any, depth: int) -> Any:
    if depth >= _MAX_DEPTH:
        return "…"
    if isinstance(value, dict):
        items = list(value.items())
        known = {str(key): _nested(item, depth + 1) for key, item in items[:_MAX_ITEMS]}
        return known | ({"…": f"{len(items)} entries"} if len(items) > _MAX_ITEMS else {})
    if isinstance(value, (list, tuple)):
        known_items = [_nested(item, depth + 1) for item in value[:_MAX_ITEMS]]
        return [*known_items, f"… {len(value)} values"] if len(value) > _MAX_ITEMS else known_items
    return as_cell(value)
