"""What a live attempt tells: log and metric bytes, progress, use of the machine."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select, update

from atelier.naming import MOST_CODE_WARNINGS, MOST_WARNINGS, SYSTEM
from atelier.quantities import utcnow
from atelier.service.store.curves import Entry, Folder, note_points, note_usage, text_of
from atelier.service.store.database import Database, next_change
from atelier.service.store.lifecycle import live_pair, ran
from atelier.service.store.schema import attempts, runs

log = logging.getLogger("atelier.service")

STREAMS = ("log", "metrics")
MORE_WARNINGS = f"The code gave more warnings than the {MOST_CODE_WARNINGS} that a run's record holds of them."
_MOST_STEPS = 2**63
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


@dataclass(frozen=True)
class Point:
    """One value of one metric. ``value`` is None when it is not finite; ``time`` is in seconds since 1970."""

    name: str
    step: int | None
    value: float | None
    time: float


def parse_points(data: bytes) -> list[Point]:
    """The points of whole lines of ``metrics.jsonl``.

    A line that no recorder writes is passed over: code may write what it likes into its spool, a full disk tears lines,
    and one bad line must not keep the good ones away for ever.
    """
    points: list[Point] = []
    for line in data.splitlines():
        try:
            points += _points_of(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as problem:
            log.debug("Not a line of metrics: %r: %r", problem, line[:200])
    return points


def _points_of(entry: Any) -> list[Point]:
    step = None if entry["step"] is None else int(entry["step"])
    moment = float(entry["t"])
    if not math.isfinite(moment) or (step is not None and not -_MOST_STEPS < step < _MOST_STEPS):
        raise ValueError("a time or a step that is no moment and no place")
    values = {str(name)[:200]: _finite(value) for name, value in entry["values"].items()}
    if not all(name and name.isprintable() for name in values):
        raise ValueError("a name that can't be shown")
    return [Point(name, step, value, moment) for name, value in values.items()]


def _finite(value: Any) -> float | None:
    number = _NOT_FINITE[value] if isinstance(value, str) else float(value)
    return number if math.isfinite(number) else None


class StreamStore:
    """Sizes and folds of the streams of attempts. An append counts once: it must begin where the last one ended."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._folder = Folder(database)

    def size(self, run_id: str, n: int, stream: str) -> int:
        """Bytes of a stream that are acknowledged."""
        column = attempts.c.log_size if stream == "log" else attempts.c.metrics_size
        with self._db.read() as connection:
            return int(
                connection.execute(select(column).where(attempts.c.run_id == run_id, attempts.c.n == n)).scalar() or 0
            )

    def appended(
        self, run_id: str, n: int, stream: str, *, offset: int, length: int, points: Iterable[Point] = ()
    ) -> int:
        """Acknowledge bytes that lie in the blob store; the stream's size afterwards.

        Bytes that were acknowledged before change nothing, and bytes after a gap are not taken: the answer tells the
        sender where to go on.
        """
        column = attempts.c.log_size if stream == "log" else attempts.c.metrics_size
        named = _by_name(points)
        text = text_of(named)
        with self._db.write() as connection:
            row, attempt = live_pair(connection, run_id, n)
            size = int(attempt._mapping[column])
            if offset != size or length == 0:
                return size
            this = (attempts.c.run_id == run_id) & (attempts.c.n == n)
            connection.execute(
                update(attempts).where(this).values({column: size + length, attempts.c.last_seen_at: utcnow()})
            )
            if named:
                note_points(connection, row, named, attempt=n, text=text)
        if named:
            self._folder.fold_if_due(run_id)
        return size + length

    def heartbeat(
        self,
        run_id: str,
        n: int,
        *,
        progress: Mapping[str, Any] | None,
        usage: Mapping[str, float],
        warnings: Iterable[str],
        code_warnings: Iterable[str] = (),
        ran_s: float | None = None,
    ) -> tuple[str, float] | None:
        """Note a sign of life; the order to stop that the agent has to obey and the seconds it has, or None.

        The agent counts them from when it hears of it first. Warnings of the code's own leave room for others.
        """
        with self._db.write() as connection:
            row, attempt = live_pair(connection, run_id, n)
            values: dict[str, Any] = {"last_seen_at": utcnow(), **ran(ran_s)}
            if usage:
                values["usage"] = dict(usage)
                note_usage(connection, run_id, _curves_of(usage), attempt=n)
            this = (attempts.c.run_id == run_id) & (attempts.c.n == n)
            connection.execute(update(attempts).where(this).values(**values))
            told = _warnings(row.warnings, warnings, code_warnings)
            self._note(connection, row, progress, told, changed=bool(usage))
        if usage:
            self._folder.fold_if_due(run_id)
        return (str(attempt.stop), float(attempt.stop_grace_s or 0.0)) if attempt.stop else None

    def _note(
        self,
        connection: Connection,
        row: Row[Any],
        progress: Mapping[str, Any] | None,
        warnings: list[str],
        *,
        changed: bool,
    ) -> None:
        values: dict[str, Any] = {}
        if progress is not None and dict(progress) != row.progress:
            values["progress"] = dict(progress)
        if warnings != row.warnings:
            values["warnings"] = warnings
        if values or changed:
            connection.execute(update(runs).where(runs.c.id == row.id).values(**values, change=next_change(connection)))

    def curves(self, run_id: str, name: str | None = None) -> dict[str, dict[str, Any]]:
        """Name → last value and points, few enough for views to draw; of one name only when it is given."""
        return self._folder.told(run_id, name)

    def fold(self, run_id: str) -> None:
        """Bring all points of a run into its curves; what they tell stays the same."""
        self._folder.fold(run_id)


def _warnings(known: list[str], told: Iterable[str], of_code: Iterable[str]) -> list[str]:
    """All warnings of a run, each once; of the code's own so many that there is room for others."""
    kept, others = dict.fromkeys(known), [text[:1000] for text in told]
    for text in (text[:1000] for text in of_code):
        if text in kept or len(kept) < MOST_CODE_WARNINGS:
            kept[text] = None
        else:
            others.append(MORE_WARNINGS)
    for text in others:
        if len(kept) < MOST_WARNINGS:
            kept[text] = None
    return list(kept)


def _by_name(points: Iterable[Point]) -> dict[str, list[Entry]]:
    named: dict[str, list[Entry]] = {}
    for point in points:
        named.setdefault(point.name, []).append((point.step, point.value, point.time))
    return named


def _curves_of(usage: Mapping[str, float]) -> dict[str, list[Entry]]:
    """Points of use by name; of a peak only the newest says something."""
    moment = utcnow().timestamp()
    return {
        SYSTEM + name[:100]: [(None, _finite(value), moment)] for name, value in usage.items() if "peak" not in name
    }
