"""The order in which waiting runs are tried: fair between owners, each one's own as he wants, nobody last for ever.

Who has the fewest runs that live, or are tried before, comes next; of two the one who has had no turn for longer, then
the one whose run has waited longer. So many runs of one owner keep no other's from starting, also where there is room
for one run only, and priorities order an owner's own runs only. Once in each
``patience`` the run of an owner that has waited longest, and for longer than that, goes before all others, in the order
of submits: whatever passes it by does so no longer. What pauses before its next attempt comes last.

The order is never made whole. How an owner's next runs compare with all others follows from numbers of owners
(`Share`), so that a place is counted, and the first ones are found, without a look at those behind them.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, insert, not_, or_, select, update

from atelier.quantities import utcnow
from atelier.records import RunState
from atelier.service.store.lateness import is_due, is_queued, late_runs, pauses
from atelier.service.store.schema import runs, turns

PATIENCE_S = 3600.0
"""The default of the setting ``limits.queue_patience``."""

OWN_ORDER = (runs.c.priority.desc(), runs.c.turn_at, runs.c.id)

_TICK = timedelta(microseconds=1)
_NEVER = datetime(1970, 1, 2, tzinfo=UTC)
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)

Key = tuple[int, int, datetime, datetime, str]
"""By what the fair are ordered: of equal shares, who has fewer tried before has had a turn longer ago."""


@dataclass(frozen=True)
class Share:
    """How the runs of an owner compare with those of others; they are counted from 1, in the owner's own order."""

    owner: str
    waiting: int
    """How many may start now and are not late."""
    live: int
    late: int
    """1 when one of his goes before all others."""
    had: datetime
    """When he had a turn."""
    first: str
    head: datetime
    """His first one's turn; ``first`` is its id."""

    def key(self, nth: int) -> Key:
        """Where his nth stands among all."""
        return self.live + self.late + nth, self.late + nth, self.had, self.head, self.owner

    def before(self, key: Key) -> int:
        """How many of his stand before that."""
        equal = key[0] - self.live - self.late
        is_before = 1 <= equal <= self.waiting and self.key(equal) < key
        return max(0, min(self.waiting, equal - 1)) + is_before


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
        return cls(connection, now, late_runs(connection, now, now - timedelta(seconds=patience_s)))

    @cached_property
    def is_fair(self) -> ColumnElement[bool]:
        """Whether a run may start now and is not late."""
        return is_queued & is_due(self.now) & runs.c.id.not_in(list(self.late))

    @cached_property
    def shares(self) -> dict[str, Share]:
        """Of each owner who has runs that may start now and are not late."""
        due = is_queued & is_due(self.now)
        crowd = select(runs.c.owner, func.count().label("waiting")).where(due).group_by(runs.c.owner).cte("crowd")
        first = select(runs.c.id).where(self.is_fair, runs.c.owner == crowd.c.owner).order_by(*OWN_ORDER).limit(1)
        head = runs.alias("head")
        query = select(crowd.c.owner, crowd.c.waiting, head.c.id, head.c.turn_at, turns.c.taken_at)
        query = query.select_from(crowd).join(head, head.c.id == first.correlate(crowd).scalar_subquery())
        query = query.outerjoin(turns, turns.c.owner == crowd.c.owner)
        live, late = _live(self.connection), {owner: number for number, owner in enumerate(self.late.values())}
        return {
            row.owner: Share(
                owner=row.owner,
                waiting=row.waiting - (row.owner in late),
                live=live.get(row.owner, 0),
                late=int(row.owner in late),
                # Those whose late runs go first have their turns before what follows, in that order.
                had=_FIRST + late[row.owner] * _TICK if row.owner in late else row.taken_at or _NEVER,
                first=row.id,
                head=row.turn_at,
            )
            for row in self.connection.execute(query)
        }

    def in_turn(self) -> Iterator[tuple[str, int]]:
        """The owners of the fair, in order, each with which of his it is."""
        heap = [(share.key(1), 1) for share in self.shares.values()]
        heapq.heapify(heap)
        while heap:
            key, nth = heap[0]
            yield key[-1], nth
            share = self.shares[key[-1]]
            if nth < share.waiting:
                heapq.heapreplace(heap, (share.key(nth + 1), nth + 1))
            else:
                heapq.heappop(heap)

    def fair(self, most: int) -> list[tuple[str, str]]:
        """Id and owner of the first that are fair, in order."""
        order = list(islice(self.in_turn(), most))
        own = {owner: self._first_of(owner, number) for owner, number in Counter(owner for owner, _ in order).items()}
        return [(own[owner][nth - 1], owner) for owner, nth in order]

    def _first_of(self, owner: str, most: int) -> list[str]:
        """The ids of an owner's first so many that are fair."""
        if most == 1:
            return [self.shares[owner].first]
        query = select(runs.c.id).where(self.is_fair, runs.c.owner == owner).order_by(*OWN_ORDER)
        return list(self.connection.execute(query.limit(most)).scalars())

    def next_of_each(self, which: ColumnElement[bool], columns: Sequence[ColumnElement[Any]]) -> list[Row[Any]]:
        """Of each owner's fair ones the first that is so; with ``nth``, which of all his fair ones that is."""
        crowd = select(runs.c.owner).where(is_queued).distinct().cte("crowd")
        first = select(runs.c.id).where(which, runs.c.owner == crowd.c.owner).order_by(*OWN_ORDER).limit(1)
        found = select(first.correlate(crowd).scalar_subquery().label("id")).select_from(crowd).subquery("found")
        chosen = select(runs.c.id, runs.c.owner, runs.c.priority, runs.c.turn_at)
        chosen_rows = chosen.join(found, found.c.id == runs.c.id).subquery("chosen")
        ahead = select(func.count()).select_from(runs).where(self.is_fair, runs.c.owner == chosen_rows.c.owner)
        ahead = ahead.where(is_ahead_of(chosen_rows.c)).correlate(chosen_rows)
        numbered = select(chosen_rows.c.id, (ahead.scalar_subquery() + 1).label("nth")).subquery("numbered")
        return list(
            self.connection.execute(select(*columns, numbered.c.nth).join(numbered, numbered.c.id == runs.c.id))
        )

    def pausing(self, most: int | None = None) -> list[tuple[str, str]]:
        """Ids and owners of those that pause, the soonest first."""
        query = select(runs.c.id, runs.c.owner).where(is_queued, pauses(self.now))
        query = query.order_by(runs.c.not_before, runs.c.id).limit(most)
        return [(row.id, row.owner) for row in self.connection.execute(query)]

    def first(self, most: int) -> list[tuple[str, str]]:
        """Id and owner of the first ones, in order."""
        found = list(self.late.items())[:most]
        found += self.fair(most - len(found))
        return found + self.pausing(most - len(found)) if len(found) < most else found

    def places(self, run_ids: Sequence[str]) -> dict[str, int]:
        """The place of each of these that waits, from 1 over all owners."""
        wanted = set(run_ids)
        found = {run_id: place for place, run_id in enumerate(self.late, 1) if run_id in wanted}
        found |= self._fair_places(run_ids)
        if len(found) < len(wanted):
            before = len(self.late) + sum(share.waiting for share in self.shares.values())
            paused = enumerate(self.pausing(), before + 1)
            found |= {run_id: place for place, (run_id, _) in paused if run_id in wanted}
        return found

    def _fair_places(self, run_ids: Sequence[str]) -> dict[str, int]:
        these: Select[Any] = select(runs.c.id, runs.c.owner, runs.c.priority, runs.c.turn_at)
        rows = self.connection.execute(these.where(self.is_fair, runs.c.id.in_(run_ids)))
        asked: dict[str, list[Row[Any]]] = {}
        for row in sorted(rows, key=lambda row: (-row.priority, row.turn_at, row.id)):
            asked.setdefault(row.owner, []).append(row)
        found = {}
        for owner, own in asked.items():
            for run_id, nth in self._numbers(owner, own):
                key = self.shares[owner].key(nth)
                found[run_id] = len(self.late) + 1 + sum(share.before(key) for share in self.shares.values())
        return found

    def _numbers(self, owner: str, asked: Sequence[Row[Any]]) -> Iterator[tuple[str, int]]:
        """The which of its owner's each of these is; they come in his order."""
        ahead = select(func.count()).select_from(runs).where(self.is_fair, runs.c.owner == owner, is_ahead_of(asked[0]))
        before = int(self.connection.execute(ahead).scalar_one())
        if len(asked) == 1:
            yield asked[0].id, before + 1
            return
        wanted = {row.id for row in asked}
        between = or_(is_ahead_of(asked[-1]), runs.c.id == asked[-1].id) & not_(is_ahead_of(asked[0]))
        line = select(runs.c.id).where(self.is_fair, runs.c.owner == owner, between).order_by(*OWN_ORDER)
        for nth, run_id in enumerate(self.connection.execute(line).scalars(), before + 1):
            if run_id in wanted:
                yield run_id, nth


def is_ahead_of(row: Any) -> ColumnElement[bool]:
    """Whether a run stands before another one of the same owner in his own order."""
    priority, turn_at = runs.c.priority == row.priority, runs.c.turn_at == row.turn_at
    return or_(
        runs.c.priority > row.priority,
        and_(priority, runs.c.turn_at < row.turn_at),
        and_(priority, turn_at, runs.c.id < row.id),
    )


def _live(connection: Connection) -> dict[str, int]:
    states = (RunState.STARTING.value, RunState.RUNNING.value)
    query = select(runs.c.owner, func.count().label("live")).where(runs.c.state.in_(states)).group_by(runs.c.owner)
    return {row.owner: int(row.live) for row in connection.execute(query)}


def places(connection: Connection, run_ids: Sequence[str], patience_s: float) -> dict[str, int]:
    """The place of each of these that waits, from 1 over all owners."""
    return Line.of(connection, patience_s).places(run_ids) if run_ids else {}


def note_turn(connection: Connection, owner: str, *, is_late: bool) -> None:
    """Note that a run of an owner was taken, and whether it was the longest waiting one that went before all."""
    now = utcnow()
    values = {"taken_at": now} | ({"late_at": now} if is_late else {})
    if connection.execute(update(turns).where(turns.c.owner == owner).values(**values)).rowcount == 0:
        connection.execute(insert(turns).values(owner=owner, **values))
