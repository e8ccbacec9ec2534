"""The order in which waiting runs are tried: fair between owners, each one's own as he wants, nobody last for ever.

Who has the fewest runs that live, or are tried before, comes next; of two the one who has had no turn for longer, then
the one whose run has waited longer. So many runs of one owner keep no other's from starting, also where there is room
for one run only, and priorities order an owner's own runs only. Once in each
``patience`` the run of an owner that has waited longest, and for longer than that, goes before all others, in the order
of submits: whatever passes it by does so no longer. What pauses before its next attempt comes last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Subquery, case, func, insert, not_, or_, select, update

from atelier.quantities import utcnow
from atelier.records import RunState
from atelier.service.store.retries import JITTER, LONGEST_PAUSE_S
from atelier.service.store.schema import runs, turns

PATIENCE_S = 3600.0
"""The default of the setting ``limits.queue_patience``."""

is_queued = runs.c.state == RunState.QUEUED.value

_LONGEST_PAUSE = timedelta(seconds=LONGEST_PAUSE_S * (1 + JITTER))
_TICK = timedelta(microseconds=1)
_NEVER = datetime(1970, 1, 2, tzinfo=UTC)
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_since = func.coalesce(runs.c.not_before, runs.c.queued_at)


@dataclass
class Line:
    """The queue as it is at one moment, within one transaction: the late, then the fair, then what pauses."""

    connection: Connection
    now: datetime
    late: dict[str, str]
    """Id → owner, of those that go before all others."""

    @classmethod
    def of(cls, connection: Connection, patience_s: float) -> Line:
        """The queue of now."""
        now = utcnow()
        return cls(connection, now, _late(connection, now, now - timedelta(seconds=patience_s)))

    @cached_property
    def fair(self) -> Subquery:
        """``id``, ``owner``, ``live`` and what orders them, of those that may start now and are not late."""
        live = _live()
        late = case((runs.c.owner.in_(list(self.late.values())), 1), else_=0)
        window: dict[str, Any] = {
            "partition_by": runs.c.owner,
            "order_by": (runs.c.priority.desc(), runs.c.turn_at, runs.c.id),
        }
        own = late + func.row_number().over(**window)
        head = func.first_value(runs.c.turn_at).over(**window).label("head")
        count = func.coalesce(live.c.live, 0)
        query = select(
            *(runs.c.id, runs.c.owner, count.label("live"), (count + own).label("share")),
            *(own.label("own"), self._last_turn.label("had"), head),
        )
        query = query.outerjoin(live, live.c.owner == runs.c.owner).outerjoin(turns, turns.c.owner == runs.c.owner)
        due = is_queued & _is_due(self.now) & runs.c.id.not_in(list(self.late))
        return query.where(due).subquery("fair")

    @property
    def _last_turn(self) -> ColumnElement[Any]:
        """When an owner had a turn; those whose late runs go first have theirs before what follows, in that order."""
        had = func.coalesce(turns.c.taken_at, _NEVER)
        first = {owner: _FIRST + number * _TICK for number, owner in enumerate(self.late.values())}
        return case(*((runs.c.owner == owner, moment) for owner, moment in first.items()), else_=had) if first else had

    @property
    def _key(self) -> tuple[ColumnElement[Any], ...]:
        """By what `fair` is ordered: of equal shares, who has fewer tried before has had a turn longer ago."""
        fair = self.fair.c
        return fair.share, fair.own, fair.had, fair.head, fair.owner

    def in_turn(self, query: Select[Any], *, most: int | None, after: int = 0) -> Select[Any]:
        """A query over `fair` in its order, from a place on."""
        return query.order_by(*self._key).limit(most).offset(after)

    def pausing(self) -> Select[Any]:
        """Ids and owners of those that pause, the soonest first."""
        query = select(runs.c.id, runs.c.owner).where(is_queued, not_(_is_due(self.now)))
        return query.order_by(runs.c.not_before, runs.c.id)

    def first(self, most: int) -> list[tuple[str, str]]:
        """Id and owner of the first ones, in order."""
        found = list(self.late.items())[:most]
        for query in (self.in_turn(select(self.fair.c.id, self.fair.c.owner), most=most), self.pausing().limit(most)):
            if len(found) < most:
                found += [(row.id, row.owner) for row in self.connection.execute(query)]
        return found[:most]

    def places(self, run_ids: Sequence[str]) -> dict[str, int]:
        """The place of each of these that waits, from 1 over all owners."""
        wanted = set(run_ids)
        found = {run_id: place for place, run_id in enumerate(self.late, 1) if run_id in wanted}
        place = func.row_number().over(order_by=self._key).label("place")
        placed = select(self.fair.c.id, place).subquery("placed")
        for row in self.connection.execute(select(placed).where(placed.c.id.in_(run_ids))):
            found[row.id] = len(self.late) + int(row.place)
        if len(found) < len(wanted):
            before = len(self.late) + self._count_fair()
            for number, row in enumerate(self.connection.execute(self.pausing()), before + 1):
                if row.id in wanted:
                    found[row.id] = number
        return found

    def _count_fair(self) -> int:
        return int(self.connection.execute(select(func.count()).select_from(self.fair)).scalar_one())


def _late(connection: Connection, now: datetime, cutoff: datetime) -> dict[str, str]:
    """The longest waiting run of each owner who had no late turn since the cutoff, when it has waited since before."""
    waits = is_queued & _is_due(now) & (runs.c.queued_at <= cutoff)  # what pauses has waited no longer than that
    if connection.execute(select(runs.c.id).where(waits).limit(1)).first() is None:
        return {}
    had = select(turns.c.owner).where(turns.c.late_at > cutoff)
    query = select(runs.c.id, runs.c.owner).where(waits, _since <= cutoff, runs.c.owner.not_in(had))
    found: dict[str, str] = {}
    owners = set()
    for row in connection.execute(query.order_by(_since, runs.c.id)):
        if row.owner not in owners:
            owners.add(row.owner)
            found[row.id] = row.owner
    return found


def _is_due(now: datetime) -> ColumnElement[bool]:
    """Whether a run pauses no longer; no pause is longer than the longest, whatever the clock has done since."""
    return or_(runs.c.not_before.is_(None), runs.c.not_before <= now, runs.c.not_before > now + _LONGEST_PAUSE)


def _live() -> Subquery:
    states = (RunState.STARTING.value, RunState.RUNNING.value)
    query = select(runs.c.owner, func.count().label("live")).where(runs.c.state.in_(states))
    return query.group_by(runs.c.owner).subquery("live")


def places(connection: Connection, run_ids: Sequence[str], patience_s: float) -> dict[str, int]:
    """The place of each of these that waits, from 1 over all owners."""
    return Line.of(connection, patience_s).places(run_ids) if run_ids else {}


def note_turn(connection: Connection, owner: str, *, is_late: bool) -> None:
    """Note that a run of an owner was taken, and whether it was the longest waiting one that went before all."""
    now = utcnow()
    values = {"taken_at": now} | ({"late_at": now} if is_late else {})
    if connection.execute(update(turns).where(turns.c.owner == owner).values(**values)).rowcount == 0:
        connection.execute(insert(turns).values(owner=owner, **values))
