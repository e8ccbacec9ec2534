"""How an owner orders the own runs that wait: by priority, and within one by turns that they exchange."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select, update

from atelier.errors import Conflict
from atelier.quantities import utcnow
from atelier.records import RunState
from atelier.service.store.database import Database, next_change
from atelier.service.store.lifecycle import WORDS, run_row, unknown_run
from atelier.service.store.ordering import is_queued
from atelier.service.store.schema import runs

_TICK = timedelta(microseconds=1)


class OwnOrder:
    """Moves a waiting run among its owner's own.

    Runs of one priority exchange their turns, and no run gets an earlier one than there was: other owners lose nothing
    by it. Doing it again changes nothing.

    Each method raises `NotFound` (``unknown_run``), and `Conflict` (``not_waiting``) for a run that is not queued.
    """

    def __init__(self, database: Database) -> None:
        self._db = database

    def first(self, run_id: str) -> None:
        """Let a run go before all others of its owner, at the highest priority among them; a pause of its ends now."""
        with self._db.write() as connection:
            row, others = _waiting(connection, run_id)
            priority = max([row.priority, *(other.priority for other in others)])
            _put(connection, row, others, priority=priority, at=0)
            if row.not_before is not None and row.not_before > utcnow():
                now = {"not_before": utcnow(), "message": WORDS[RunState.QUEUED], "hint": ""}
                connection.execute(update(runs).where(runs.c.id == run_id).values(**now))

    def last(self, run_id: str) -> None:
        """Let a run go behind all others of its owner, at the lowest priority among them."""
        with self._db.write() as connection:
            row, others = _waiting(connection, run_id)
            priority = min([row.priority, *(other.priority for other in others)])
            _put(connection, row, others, priority=priority, at=len(others))

    def before(self, run_id: str, other_id: str) -> None:
        """Let a run go right before another one of the same owner, at its priority."""
        with self._db.write() as connection:
            row, others = _waiting(connection, run_id)
            other, _ = _waiting(connection, other_id)
            if other.owner != row.owner:
                raise unknown_run(other_id)
            if other.id == row.id:
                return
            same = [each.id for each in others if each.priority == other.priority]
            _put(connection, row, others, priority=other.priority, at=same.index(other_id))

    def prioritise(self, run_id: str, priority: int) -> None:
        """Give a run another priority; its turn stays."""
        with self._db.write() as connection:
            row, _ = _waiting(connection, run_id)
            if row.priority != priority:
                values = {"priority": priority, "change": next_change(connection)}
                connection.execute(update(runs).where(runs.c.id == run_id).values(**values))


def _waiting(connection: Connection, run_id: str) -> tuple[Row[Any], list[Row[Any]]]:
    """A waiting run, and the others of its owner that wait, in their order."""
    row = run_row(connection, run_id)
    if row is None:
        raise unknown_run(run_id)
    if row.state != RunState.QUEUED:
        raise Conflict(
            "not_waiting",
            f"Run {run_id} is {row.state}, and only runs that wait have a place to change.",
            hint="'atelier runs --state queued' lists those that wait.",
        )
    own = select(runs.c.id, runs.c.priority, runs.c.turn_at)
    own = own.where(runs.c.owner == row.owner, is_queued, runs.c.id != run_id)
    ordered = own.order_by(runs.c.priority.desc(), runs.c.turn_at, runs.c.id)
    return row, list(connection.execute(ordered))


def _put(connection: Connection, row: Row[Any], others: Sequence[Row[Any]], *, priority: int, at: int) -> None:
    """Give a run a priority and a place among the others that have it; those between take each the turn of the next."""
    line = [(other.id, other.turn_at) for other in others if other.priority == priority]
    line.insert(at, (row.id, row.turn_at))
    turns = _distinct(sorted(moment for _, moment in line))
    moved = [
        {"moved": run_id, "turn": after} for (run_id, before), after in zip(line, turns, strict=True) if before != after
    ]
    if moved:
        exchange = update(runs).where(runs.c.id == bindparam("moved")).values(turn_at=bindparam("turn"))
        connection.execute(exchange, moved)
    values = {"priority": priority, "change": next_change(connection)}
    connection.execute(update(runs).where(runs.c.id == row.id).values(**values))


def _distinct(turns: Sequence[datetime]) -> list[datetime]:
    """Sorted moments, each later than the one before: equal ones would leave the order to the ids."""
    made: list[datetime] = []
    for moment in turns:
        made.append(max(moment, made[-1] + _TICK) if made else moment)
    return made
