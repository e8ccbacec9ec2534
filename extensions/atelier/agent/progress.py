"""How far a work is, and how long it will still take: known only from at least two points."""

from __future__ import annotations

import math
import threading
from datetime import UTC, datetime
from typing import Any

LONGEST_S = 10 * 365 * 86400.0
"""A time left beyond this is told as unknown."""


class ProgressMeter:
    """The newest progress, and the rate since the first point. Thread-safe.

    The work's own progress, once it tells any, stands over the count of executed cells. From these no time left is
    told: the cell that trains takes longer than all others.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._own = False
        self._first: tuple[float, float] | None = None
        self._newest: tuple[float, float] | None = None
        self._total: float | None = None

    def set(self, done: float, total: float | None, at_s: float, *, own: bool) -> None:
        """Note a point: ``done`` of ``total`` at a time in seconds since 1970.

        Raises
        ------
        ValueError, TypeError, OverflowError
            One of them is no number, or no moment.
        """
        done, total = _finite(done), None if total is None else _finite(total)
        datetime.fromtimestamp(at_s, UTC)
        with self._lock:
            if self._own and not own:
                return
            starts_over = (
                (own and not self._own) or (self._newest is not None and done < self._newest[0]) or total != self._total
            )
            self._own, self._total, self._newest = own, total, (done, at_s)
            if starts_over or self._first is None:
                self._first = (done, at_s)

    def as_json(self) -> dict[str, Any] | None:
        """The progress as a run's record has it; None before the first point."""
        with self._lock:
            if self._newest is None:
                return None
            done, at_s = self._newest
            moment = datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            unit = None if self._own else "cells"
            return {"done": done, "total": self._total, "unit": unit, "left_s": self._left_s(), "at": moment}

    def _left_s(self) -> float | None:
        if not self._own or self._first is None or self._newest is None or self._total is None:
            return None
        done, took_s = self._newest[0] - self._first[0], self._newest[1] - self._first[1]
        if done <= 0 or took_s <= 0:
            return None
        left_s = max(0.0, (self._total - self._newest[0]) * took_s / done)
        return left_s if left_s < LONGEST_S else None


def _finite(value: float) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is not finite")
    return number
