"""Curves of a run's metrics: new points are noted in one row, and folded into thinned curves a few at a time.

All of the service waits while one writes, so what an append writes must not grow with what is there already.
A later attempt that goes on from a checkpoint tells some steps again: of those a curve has what came last, once.
"""

from __future__ import annotations

import json
import math
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update

from atelier.crash_points import crash_point
from atelier.service.store.database import Database, next_change
from atelier.service.store.schema import curves, fresh_points, runs

MOST_POINTS = 500
"""Points told of a curve; when twice as many are kept, every second one goes (the stride doubles)."""

MOST_POINTS_TOGETHER = 100_000
"""Points told of all curves of a run: where there are many, each has fewer."""

MOST_NAMES = 1000
"""Names of curves that a run may have; points of others stay in its stream of metrics only."""

MOST_SYSTEM_NAMES = 100
"""Names besides that agents may give for how the machine was used."""

MOST_NEWEST = 100
"""Names whose newest values a run's record holds: those that came first."""

TOO_MANY_NAMES = (
    f"The run logs metrics under more than {MOST_NAMES:,} names: only the first ones have curves. "
    "Log a fixed set of names, and give the step as step=."
)

FOLDED_AT = 20_000
"""Points that may wait until they are folded."""

ROWS_FOLDED_AT = 64
FOLDED_TOGETHER = 100
"""Curves that are written in one transaction."""

Entry = Sequence[Any]
"""Step or None, value or None when it is not finite, seconds since 1970."""

Named = Mapping[str, Sequence[Entry]]
"""Points by name, in the order they came."""

_ENTRY = struct.Struct("<qdd")
_STEP = struct.Struct("<q")
_NO_STEP = -(2**63)


@dataclass
class Curve:
    """Points of one name: every ``stride``-th from the first on, packed; ``last`` is the newest of all ``count``.

    ``attempt`` told the newest ones; the first ``older`` of those that are kept are of attempts before it.
    """

    count: int = 0
    stride: int = 1
    kept: bytearray = field(default_factory=bytearray)
    last: Entry = (None, None, 0.0)
    attempt: int = 1
    older: int = 0

    def begin(self, attempt: int) -> None:
        """What is added next is of this attempt."""
        if attempt > self.attempt:
            self.attempt, self.older = attempt, len(self.kept) // _ENTRY.size

    def add(self, entries: Sequence[Entry], most: int) -> None:
        """Add points, and keep less than ``2 * most``."""
        for entry in entries:
            self._take_back(entry[0])
            if self.count % self.stride == 0:
                step, value, time = entry
                self.kept += _ENTRY.pack(_NO_STEP if step is None else step, math.nan if value is None else value, time)
                while len(self.kept) >= 2 * most * _ENTRY.size:
                    self.kept = bytearray().join(_every(self.kept, 2))
                    self.stride, self.older = self.stride * 2, -(-self.older // 2)
            self.count += 1
            self.last = entry

    def _take_back(self, step: int | None) -> None:
        """Drop what earlier attempts told of a step that is told again, and of the steps after it."""
        end = start = self.older * _ENTRY.size
        while step is not None and start and _STEP.unpack_from(self.kept, start - _ENTRY.size)[0] >= step:
            start -= _ENTRY.size
        if start < end:
            del self.kept[start:end]
            self.older = start // _ENTRY.size
            self.count = len(self.kept) // _ENTRY.size * self.stride

    def told(self, most: int) -> dict[str, Any]:
        """The curve as views draw it, with at most ``most`` points."""
        nth = -(-(len(self.kept) // _ENTRY.size) // most) or 1
        step, value, time = self.last
        return {
            "last": {"step": step, "value": value, "time": time},
            "count": self.count,
            "points": [_entry(packed) for packed in _every(self.kept, nth)],
        }


def _every(kept: bytearray, nth: int) -> Iterator[bytearray]:
    return (kept[place : place + _ENTRY.size] for place in range(0, len(kept), nth * _ENTRY.size))


def _entry(packed: bytearray) -> list[Any]:
    step, value, time = _ENTRY.unpack(packed)
    return [None if step == _NO_STEP else step, None if math.isnan(value) else value, time]


def most_points(names: int) -> int:
    """How many points are told of each of that many curves."""
    return max(1, min(MOST_POINTS, MOST_POINTS_TOGETHER // max(1, names)))


def text_of(named: Named) -> str:
    """Points as their row holds them; made before the transaction."""
    return json.dumps(named, allow_nan=False, separators=(",", ":"))


def note_points(connection: Connection, row: Row[Any], named: Named, *, attempt: int, text: str) -> None:
    """Note new points of a run and its newest values, inside a write transaction; ``text`` is `text_of` them."""
    admitted = _note(connection, row.id, named, attempt=attempt, text=text, most_names=MOST_NAMES)
    newest = dict(row.metrics)
    for name in admitted:
        if name in newest or len(newest) < MOST_NEWEST:
            newest[name] = named[name][-1][1]
    values: dict[str, Any] = {"metrics": newest, "change": next_change(connection)}
    if len(admitted) < len(named) and TOO_MANY_NAMES not in row.warnings:
        values["warnings"] = [*row.warnings, TOO_MANY_NAMES]
    connection.execute(update(runs).where(runs.c.id == row.id).values(**values))


def note_usage(connection: Connection, run_id: str, named: Named, *, attempt: int) -> None:
    """Note how a run used its machine, inside a write transaction."""
    most = MOST_NAMES + MOST_SYSTEM_NAMES
    _note(connection, run_id, named, attempt=attempt, text=text_of(named), most_names=most)


def _note(connection: Connection, run_id: str, named: Named, *, attempt: int, text: str, most_names: int) -> list[str]:
    """Write the points of those names that the run has a curve of or may have one more of; these names."""
    known = set(connection.execute(select(curves.c.name).where(curves.c.run_id == run_id)).scalars())
    new = [name for name in named if name not in known][: max(0, most_names - len(known))]
    if new:
        connection.execute(insert(curves), [{"run_id": run_id, "name": name} for name in new])
    admitted = [name for name in named if name in known] + new
    if admitted:
        kept = text if len(admitted) == len(named) else text_of({name: named[name] for name in admitted})
        amount = sum(len(named[name]) for name in admitted)
        fresh = {"run_id": run_id, "seq": next_change(connection), "attempt": attempt, "amount": amount, "points": kept}
        connection.execute(insert(fresh_points).values(**fresh))
    return admitted


class Folder:
    """Folds what was noted into curves, outside of the transactions that note it.

    A curve's row says up to which note it has been folded: whoever is cut off leaves nothing that counts twice or not
    at all. Two never fold one run at once.
    """

    def __init__(self, database: Database) -> None:
        self._db = database
        self._guards = tuple(threading.Lock() for _ in range(64))

    def fold_if_due(self, run_id: str) -> None:
        """Fold a run's points when many wait."""
        waiting = select(func.count(), func.sum(fresh_points.c.amount)).where(fresh_points.c.run_id == run_id)
        with self._db.read() as connection:
            rows, amount = connection.execute(waiting).one()
        if rows >= ROWS_FOLDED_AT or (amount or 0) >= FOLDED_AT:
            self.fold(run_id)

    def fold(self, run_id: str) -> None:
        """Fold all of a run's points that wait; called again it changes nothing."""
        with self._guards[hash(run_id) % len(self._guards)]:
            with self._db.read() as connection:
                notes, found = _notes(connection, run_id), _curves(connection, run_id)
            if not notes:
                return
            newest, most = notes[-1].seq, most_points(len(found))
            touched = {name for note in notes for name in note.named}
            folded = [
                _values(run_id, name, _folded(row, notes, most), newest)
                for name, row in found.items()
                if name in touched and row.folded < newest
            ]
            crash_point("service.fold.before")
            for start in range(0, len(folded), FOLDED_TOGETHER):
                with self._db.write() as connection:
                    connection.execute(_UPDATE, folded[start : start + FOLDED_TOGETHER])
            crash_point("service.fold.curves")
            done = (fresh_points.c.run_id == run_id) & (fresh_points.c.seq <= newest)
            with self._db.write() as connection:
                connection.execute(delete(fresh_points).where(done))
            crash_point("service.fold.after")

    def told(self, run_id: str, name: str | None = None) -> dict[str, dict[str, Any]]:
        """Name → curve as views draw it, with what still waits; of one name only when it is given."""
        with self._db.read() as connection:
            notes, found = _notes(connection, run_id), _curves(connection, run_id, name)
            names = select(func.count()).where(curves.c.run_id == run_id)
            most = most_points(int(connection.execute(names).scalar_one()))
        return {row.name: _folded(row, notes, most).told(most) for row in found.values()}


_UPDATE = (
    update(curves)
    .where(curves.c.run_id == bindparam("of_run"), curves.c.name == bindparam("of_name"))
    .values({name: bindparam(f"new_{name}") for name in ("last_step", "last_value", "last_time", "count", "stride",
                                                         "points", "folded", "attempt", "older")})
)  # fmt: skip


@dataclass(frozen=True)
class Note:
    """Points of one attempt that were noted together; ``seq`` grows from note to note."""

    seq: int
    attempt: int
    named: Named


def _notes(connection: Connection, run_id: str) -> list[Note]:
    query = select(fresh_points).where(fresh_points.c.run_id == run_id).order_by(fresh_points.c.seq)
    return [Note(row.seq, row.attempt, json.loads(row.points)) for row in connection.execute(query)]


def _curves(connection: Connection, run_id: str, name: str | None = None) -> dict[str, Row[Any]]:
    query = select(curves).where(curves.c.run_id == run_id).order_by(curves.c.name)
    if name is not None:
        query = query.where(curves.c.name == name)
    return {row.name: row for row in connection.execute(query)}


def _folded(row: Row[Any], notes: Iterable[Note], most: int) -> Curve:
    last = (row.last_step, row.last_value, row.last_time)
    curve = Curve(row._mapping["count"], row.stride, bytearray(row.points), last, row.attempt, row.older)
    for note in notes:
        if note.seq > row.folded and row.name in note.named:
            curve.begin(note.attempt)
            curve.add(note.named[row.name], most)
    return curve


def _values(run_id: str, name: str, curve: Curve, folded: int) -> dict[str, Any]:
    step, value, time = curve.last
    return {
        "of_run": run_id,
        "of_name": name,
        "new_last_step": step,
        "new_last_value": value,
        "new_last_time": time,
        "new_count": curve.count,
        "new_stride": curve.stride,
        "new_points": bytes(curve.kept),
        "new_folded": folded,
        "new_attempt": curve.attempt,
        "new_older": curve.older,
    }
