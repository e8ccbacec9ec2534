"""How an owner orders the own runs that wait: by priority, and within one by turns."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, not_, select, update

from atelier.errors import Conflict
from atelier.quantities import utcnow
from atelier.records import RunState
from atelier.service.store.database import Database, next_change, stir
from atelier.service.store.lateness import is_queued
from atelier.service.store.lifecycle import WORDS, run_row, unknown_run
from atelier.service.store.ordering import OWN_ORDER, is_ahead_of
from atelier.service.store.schema import runs

_TICK = timedelta(microseconds=1)
_BACKWARDS = (runs.c.priority, runs.c.turn_at.desc(), runs.c.id.desc())


class OwnOrder:
    """Moves a waiting run among its owner's own.

    A run takes a turn between those of its new neighbours; others are touched only where there is none between. No run
    gets an earlier turn than there was, and who is first has the one that the first had: neither other owners nor its
    own one lose anything by it. Doing it again changes nothing.

    Each method raises `NotFound` (``unknown_run``), and `Conflict` (``not_waiting``) for a run that is not queued.
    """

    def __init__(self, database: Database) -> None:
        self._db = database

    def first(self, run_id: str) -> None:
        """Let a run go before all others of its owner, at the highest priority among them; a pause of its ends now."""
        with self._db.write() as connection:
            row = _waiting(connection, run_id)
            best = _next(connection, row, OWN_ORDER)
            priority = row.priority if best is None else max(row.priority, best.priority)
            _put(connection, row, priority, _next(connection, row, OWN_ORDER, runs.c.priority == priority))
            if row.not_before is not None and row.not_before > utcnow():
                now = {"not_before": utcnow(), "message": WORDS[RunState.QUEUED], "hint": ""}
                connection.execute(update(runs).where(runs.c.id == run_id).values(**now))
                stir(connection)

    def last(self, run_id: str) -> None:
        """Let a run go behind all others of its owner, at the lowest priority among them."""
        with self._db.write() as connection:
            row = _waiting(connection, run_id)
            worst = _next(connection, row, _BACKWARDS)
            _put(connection, row, row.priority if worst is None else min(row.priority, worst.priority), None)

    def before(self, run_id: str, other_id: str) -> None:
        """Let a run go right before another one of the same owner, at its priority."""
        with self._db.write() as connection:
            row, other = _waiting(connection, run_id), _waiting(connection, other_id)
            if other.owner != row.owner:
                raise unknown_run(other_id)
            if other.id != row.id:
                _put(connection, row, other.priority, other)

    def prioritise(self, run_id: str, priority: int) -> None:
        """Give a run another priority; its turn stays."""
        with self._db.write() as connection:
            row = _waiting(connection, run_id)
            if row.priority != priority:
                values = {"priority": priority, "change": next_change(connection)}
                connection.execute(update(runs).where(runs.c.id == run_id).values(**values))
                stir(connection)


def _waiting(connection: Connection, run_id: str) -> Row[Any]:
    row = run_row(connection, run_id)
    if row is None:
        raise unknown_run(run_id)
    if row.state != RunState.QUEUED:
        raise Conflict(
            "not_waiting",
            f"Run {run_id} is {row.state}, and only runs that wait have a place to change.",
            hint="'atelier runs --state queued' lists those that wait.",
        )
    return row


def _next(
    connection: Connection, row: Row[Any], order: Sequence[ColumnElement[Any]], *which: ColumnElement[bool]
) -> Row[Any] | None:
    """The first other waiting run of the same owner, in an order."""
    others: Select[Any] = select(runs.c.id, runs.c.priority, runs.c.turn_at)
    others = others.where(runs.c.owner == row.owner, is_queued, runs.c.id != row.id, *which)
    return connection.execute(others.order_by(*order).limit(1)).first()


def _put(connection: Connection, row: Row[Any], priority: int, behind: Row[Any] | None) -> None:
    """Give a run a priority and a place before one that has it; None is behind all that have it."""
    line = runs.c.priority == priority
    ahead = _next(connection, row, _BACKWARDS, line, *([is_ahead_of(behind)] if behind is not None else []))
    was_first = _next(connection, row, OWN_ORDER, is_ahead_of(row)) is None
    turn_at = _turn_between(row.turn_at, ahead and ahead.turn_at, behind and behind.turn_at)
    values = {"priority": priority, "turn_at": turn_at, "change": next_change(connection)}
    connection.execute(update(runs).where(runs.c.id == row.id).values(**values))
    if behind is not None and behind.turn_at <= turn_at:
        _push_back(connection, row, line & not_(is_ahead_of(behind)), turn_at)
    head = _next(connection, row, OWN_ORDER) if was_first else None
    if head is not None and (-head.priority, head.turn_at) < (-priority, turn_at) and row.turn_at < head.turn_at:
        connection.execute(update(runs).where(runs.c.id == head.id).values(turn_at=row.turn_at))
    stir(connection)


def _turn_between(own: datetime, ahead: datetime | None, behind: datetime | None) -> datetime:
    """A run's turn between two others': its own where that will do, never an earlier one than there was."""
    if ahead is None:
        return own if behind is None else min(own, behind)
    if behind is None:
        return max(own, ahead + _TICK)
    return own if ahead < own < behind else ahead + max((behind - ahead) // 2, _TICK)


def _push_back(connection: Connection, row: Row[Any], these: ColumnElement[bool], turn_at: datetime) -> None:
    """Let others of a run's owner have later turns than a moment, in their order; most have already."""
    line = select(runs.c.id, runs.c.turn_at).where(runs.c.owner == row.owner, is_queued, runs.c.id != row.id, these)
    moved = []
    for each in connection.execute(line.order_by(*OWN_ORDER)):
        if each.turn_at > turn_at:
            break
        turn_at += _TICK
        moved.append({"moved": each.id, "turn": turn_at})
    exchange = update(runs).where(runs.c.id == bindparam("moved")).values(turn_at=bindparam("turn"))
    connection.execute(exchange, moved)
