"""What a live attempt tells: log and metric bytes, progress, use of the machine; folded into what views need."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from atelier.quantities import utcnow
from atelier.service.store.database import Database, next_change
from atelier.service.store.lifecycle import live_pair
from atelier.service.store.schema import attempts, curves, runs

log = logging.getLogger("atelier.service")

MOST_POINTS = 500
"""Points kept of a curve; when there are twice as many, every second one goes (the stride doubles)."""

MOST_NAMES = 1000
"""Names of curves that a run may have; points of others stay in its stream of metrics only."""

MOST_NEWEST = 100
"""Names whose newest values a run's record holds: those that came first."""

TOO_MANY_NAMES = (
    f"The run logs metrics under more than {MOST_NAMES:,} names: only the first ones have curves. "
    "Log a fixed set of names, and give the step as step=."
)

STREAMS = ("log", "metrics")
SYSTEM = "system/"
"""Begins the names of the curves that every run has by itself: how it used the machine."""

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
    if not math.isfinite(moment) or (step is not None and not -_MOST_STEPS <= step < _MOST_STEPS):
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
        with self._db.write() as connection:
            row, attempt = live_pair(connection, run_id, n)
            size = int(attempt._mapping[column])
            if offset != size or length == 0:
                return size
            this = (attempts.c.run_id == run_id) & (attempts.c.n == n)
            connection.execute(
                update(attempts).where(this).values({column: size + length, attempts.c.last_seen_at: utcnow()})
            )
            fold_points(connection, row, points)
            return size + length

    def heartbeat(
        self,
        run_id: str,
        n: int,
        *,
        progress: Mapping[str, Any] | None,
        usage: Mapping[str, float],
        warnings: Iterable[str],
    ) -> tuple[str, float] | None:
        """Note a sign of life; the order to stop that the agent has to obey and the seconds it has, or None."""
        with self._db.write() as connection:
            row, attempt = live_pair(connection, run_id, n)
            values: dict[str, Any] = {"last_seen_at": utcnow()}
            if usage:
                values["usage"] = dict(usage)
                _fold_usage(connection, run_id, usage)
            this = (attempts.c.run_id == run_id) & (attempts.c.n == n)
            connection.execute(update(attempts).where(this).values(**values))
            self._note(connection, row, progress, list(warnings), changed=bool(usage))
        return (str(attempt.stop), (attempt.stop_at - utcnow()).total_seconds()) if attempt.stop else None

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
        told = dict.fromkeys(text[:1000] for text in warnings)
        fresh = [text for text in told if text not in row.warnings]
        if fresh:
            values["warnings"] = [*row.warnings, *fresh][:100]
        if values or changed:
            connection.execute(update(runs).where(runs.c.id == row.id).values(**values, change=next_change(connection)))

    def curves(self, run_id: str) -> dict[str, dict[str, Any]]:
        """Name → last value and at most `MOST_POINTS` points, as views draw them."""
        with self._db.read() as connection:
            rows = connection.execute(select(curves).where(curves.c.run_id == run_id).order_by(curves.c.name)).all()
        return {
            row.name: {
                "last": {"step": row.last_step, "value": row.last_value, "time": row.last_time},
                "count": row._mapping["count"],
                "points": _thinned(row.points),
            }
            for row in rows
        }


def fold_points(connection: Connection, row: Row[Any], points: Iterable[Point]) -> None:
    """Fold new points into a run's curves and its newest values, inside a write transaction."""
    by_name: dict[str, list[Point]] = {}
    for point in points:
        by_name.setdefault(point.name, []).append(point)
    if not by_name:
        return
    admitted = _admitted(connection, row.id, by_name)
    newest = dict(row.metrics)
    for name in admitted:
        _fold_one(connection, row.id, name, by_name[name])
        if name in newest or len(newest) < MOST_NEWEST:
            newest[name] = by_name[name][-1].value
    values: dict[str, Any] = {"metrics": newest, "change": next_change(connection)}
    if len(admitted) < len(by_name) and TOO_MANY_NAMES not in row.warnings:
        values["warnings"] = [*row.warnings, TOO_MANY_NAMES]
    connection.execute(update(runs).where(runs.c.id == row.id).values(**values))


def _admitted(connection: Connection, run_id: str, names: Iterable[str]) -> list[str]:
    """Those of the names that the run has a curve of or may have one more of."""
    known = set(connection.execute(select(curves.c.name).where(curves.c.run_id == run_id)).scalars())
    old = [name for name in names if name in known]
    new = [name for name in names if name not in known]
    return old + new[: max(0, MOST_NAMES - len(known))]


def _fold_usage(connection: Connection, run_id: str, usage: Mapping[str, float]) -> None:
    moment = utcnow().timestamp()
    for name, value in usage.items():
        _fold_one(connection, run_id, SYSTEM + name, [Point(SYSTEM + name, None, float(value), moment)])


def _fold_one(connection: Connection, run_id: str, name: str, fresh: list[Point]) -> None:
    this = (curves.c.run_id == run_id) & (curves.c.name == name)
    row = connection.execute(select(curves).where(this)).first()
    count, stride, points = 0, 1, []
    if row is not None:
        count, stride, points = int(row._mapping["count"]), int(row.stride), list(row.points)
    for point in fresh:
        if count % stride == 0:
            points.append([point.step, point.value, point.time])
            if len(points) >= 2 * MOST_POINTS:
                points, stride = points[::2], stride * 2
        count += 1
    last = fresh[-1]
    values: dict[str, Any] = {"last_step": last.step, "last_value": last.value, "last_time": last.time}
    values |= {"count": count, "stride": stride, "points": points}
    if row is None:
        connection.execute(insert(curves).values(run_id=run_id, name=name, **values))
    else:
        connection.execute(update(curves).where(this).values(**values))


def _thinned(points: list[list[Any]]) -> list[list[Any]]:
    step = -(-len(points) // MOST_POINTS) or 1
    return points[::step] if step > 1 else points
