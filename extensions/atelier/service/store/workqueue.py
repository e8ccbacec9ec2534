"""The queue: which waiting run is next, and its claim with all it needs, in one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Text,
    and_,
    cast,
    exists,
    false,
    func,
    insert,
    not_,
    or_,
    select,
    true,
    update,
)

from atelier.crash_points import crash_point
from atelier.quantities import utcnow
from atelier.records import REASON_TEXT, AttemptState, Reason, RunState
from atelier.service.store.database import STIRS, Database, next_change
from atelier.service.store.lateness import is_queued
from atelier.service.store.leases import KERNEL
from atelier.service.store.lifecycle import LIVE_ATTEMPTS, holder_of, live_attempt, move, new_token
from atelier.service.store.ordering import PATIENCE_S, Line, note_turn
from atelier.service.store.schema import attempts, counters, leases, runs

MOST_TOLD = 100
"""Of so many of the queue it is worked out why they wait; those farther back wait for their turn."""

FEW = 8
"""So many are read at first."""

_SHAPE = cast(runs.c.accelerators, Text).label("shape")
_CLAIMED = (
    *(runs.c[name] for name in "id owner state epoch attempt reason cpu memory_bytes accelerators".split()),
    _SHAPE,
)


@dataclass(frozen=True)
class Capacity:
    """What there is to give away. None is no limit. ``devices`` maps a resource to the ids of its devices."""

    cpu: float | None = None
    memory_bytes: int | None = None
    devices: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Quota:
    """What one owner may use at once. None is no limit."""

    runs: int | None = None
    cpu: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Claim:
    """A run whose next attempt may start now: its token, and the devices that it holds by resource."""

    run_id: str
    n: int
    token: str
    devices: dict[str, list[str]]


@dataclass(frozen=True)
class Wait:
    """A run that can't start yet, and why; ``is_news`` when it says otherwise until now."""

    run_id: str
    reason: Reason
    is_news: bool = field(default=True, compare=False)


@dataclass(frozen=True)
class Stir:
    """Tells whether the queue, and what it waits for, is as it was: how often it changed, and when a pause ends."""

    count: int
    pause_ends: datetime | None

    def is_over(self, now: datetime) -> bool:
        """Whether a run that paused may start since."""
        return self.pause_ends is not None and self.pause_ends <= now


@dataclass
class _Use:
    runs: int = 0
    cpu: float = 0.0
    memory_bytes: int = 0


class Queue:
    """Claims are all or nothing: attempt row, token and device leases come in one write transaction.

    ``patience_s`` is how long a run may be passed by; see `ordering`.
    """

    def __init__(self, database: Database, patience_s: float = PATIENCE_S) -> None:
        self._db = database
        self.patience_s = patience_s

    def claim(self, capacity: Capacity, quota: Quota) -> tuple[Claim | None, list[Wait]]:
        """The first waiting run that fits, claimed; and those before it that don't fit, with the reason.

        A run that waits for capacity holds up all later ones, so that small runs don't starve a large one. One that
        waits for accelerators that only other runs hold keeps those that are free, which holds up later runs for the
        same kind and nobody else; one that waits for its owner's limit or for kernels, which people end and no queue,
        holds up nobody. Of those that wait, the first `MOST_TOLD` are told of.
        """
        with self._db.read() as connection:
            if connection.execute(select(runs.c.id).where(is_queued).limit(1)).first() is None:
                return None, []
        with self._db.write() as connection:
            stock, queue = _stock(connection, capacity, quota), Line.of(connection, self.patience_s)
            search = _Search(queue, stock)
            row = search.run()
            if row is None:
                return None, search.waits
            note_turn(connection, row.owner, is_late=row.id in queue.late)
            return _take(connection, row, stock.free), search.waits

    def stirred(self) -> Stir:
        """How often the queue has changed until now, and when the next run that pauses may start."""
        with self._db.read() as connection:
            count = connection.execute(select(counters.c.value).where(counters.c.name == STIRS)).scalar()
            soonest = select(func.min(runs.c.not_before)).where(is_queued, runs.c.not_before > utcnow())
            return Stir(int(count or 0), connection.execute(soonest).scalar())

    def again(self, run_id: str, n: int) -> Claim | None:
        """The claim of a live attempt that no agent has taken up, with a new token in place of the old one.

        None when the attempt is over.
        """
        token, token_hash = new_token()
        with self._db.write() as connection:
            this = update(attempts).where(live_attempt(run_id, n)).values(token_hash=token_hash)
            if connection.execute(this).rowcount != 1:
                return None
            held = select(leases.c.resource, leases.c.device).where(leases.c.holder == holder_of(run_id, n))
            devices: dict[str, list[str]] = {}
            for resource, device in connection.execute(held.order_by(leases.c.device)):
                devices.setdefault(resource, []).append(device)
        return Claim(run_id, n, token, devices)

    def tell(self, waits: Sequence[Wait]) -> set[str]:
        """Say why runs still wait; the owners of those to whom that is news."""
        news = [wait for wait in waits if wait.is_news]
        if not news:
            return set()
        with self._db.write() as connection:
            return {owner for wait in news if (owner := _tell(connection, wait)) is not None}

    def first(self, most: int) -> list[tuple[str, str]]:
        """The first of those that wait, in order, also for their next attempt: id and owner."""
        with self._db.read() as connection:
            return Line.of(connection, self.patience_s).first(most)

    def moved(self, run_ids: Sequence[str]) -> None:
        """Let watchers read these anew, as far as they still wait: their places in the queue are others."""
        with self._db.write() as connection:
            for run_id in run_ids:
                this = (runs.c.id == run_id) & is_queued
                connection.execute(update(runs).where(this).values(change=next_change(connection)))


def _tell(connection: Connection, wait: Wait) -> str | None:
    """The owner of a run that now says why it waits; None when it waits no more."""
    sentence, action = REASON_TEXT[wait.reason]
    values = {"reason": wait.reason.value, "message": sentence, "hint": action, "change": next_change(connection)}
    this = update(runs).where(runs.c.id == wait.run_id, is_queued).values(**values).returning(runs.c.owner)
    return connection.execute(this).scalar()


@dataclass
class _Stock:
    """What is in use and what is free while one claim looks at the queue."""

    capacity: Capacity
    quota: Quota
    used: _Use
    by_owner: dict[str, _Use]
    free: dict[str, list[str]]
    kernels: list[Row[Any]]


def _stock(connection: Connection, capacity: Capacity, quota: Quota) -> _Stock:
    used, by_owner = _in_use(connection)
    held = connection.execute(select(leases).where(leases.c.holder.startswith(KERNEL))).all()
    return _Stock(capacity, quota, used, by_owner, _free_devices(connection, capacity), list(held))


@dataclass
class _Search:
    """One look for a run that can start: what was found in the way of those before it."""

    queue: Line
    stock: _Stock
    waits: list[Wait] = field(default_factory=list)
    is_blocked: bool = False
    _passed: list[str] = field(default_factory=list)
    _hopeless: set[str] = field(default_factory=set)
    """Accelerators, as the database has them, of which no run of now gets as many."""

    def run(self) -> Row[Any] | None:
        """The first run that fits."""
        for row in self._told():
            if self.is_blocked and len(self.waits) >= MOST_TOLD:
                return None
            if self._fits(row):
                return row
        while not self.is_blocked and (behind := self._next_behind()) is not None:
            if self._fits(behind):
                return behind
        return None

    def _told(self) -> Iterator[Row[Any]]:
        """The late, and of the others so many that each may be told why it waits; the very first are mostly enough."""
        ids = [*self.queue.late, *(run_id for run_id, _ in self.queue.fair(MOST_TOLD))]
        for begin, end in ((0, FEW), (FEW, None)):
            some = ids[begin:end]
            rows = {row.id: row for row in self.queue.connection.execute(select(*_CLAIMED).where(runs.c.id.in_(some)))}
            yield from (rows[run_id] for run_id in some)

    def _next_behind(self) -> Row[Any] | None:
        """The first of those that nobody is told of which may fit: not over a limit, nor larger than all there is.

        Behind a crowd that waits for its owner's limit, or for accelerators, there may be one that can start.
        """
        may_fit = self.queue.is_fair & _may_fit(self.stock) & _SHAPE.not_in(self._hopeless)
        rows = self.queue.next_of_each(may_fit & runs.c.id.not_in(self._passed), _CLAIMED)
        return min(rows, key=lambda row: self.queue.shares[row.owner].key(row.nth), default=None)

    def _fits(self, row: Row[Any]) -> bool:
        """Whether a run can start; when it can't, what that means for later ones."""
        self._passed.append(row.id)
        reason = self._obstacle(row)
        if reason is None and not self.is_blocked:
            return True
        reason = reason or Reason.WAITS_FOR_CAPACITY
        if len(self.waits) < MOST_TOLD:
            self.waits.append(Wait(row.id, reason, row.reason != reason.value))
        if reason is Reason.WAITS_FOR_CAPACITY and _could_fit(row, self.stock.capacity):
            self.is_blocked = True
        return False

    def _obstacle(self, row: Row[Any]) -> Reason | None:
        reason = _obstacle(row, self.stock)
        if reason is not Reason.WAITS_FOR_ACCELERATOR:
            return reason
        free, kernels = self.stock.free, self.stock.kernels
        if _runs_can_free(row, self.stock.capacity, {lease.device for lease in kernels}):
            self.stock.free = _without_reserved(row, free)
        if self.stock.free == free:
            self._hopeless.add(row.shape)
        is_own = any(each.owner == row.owner and each.resource in row.accelerators for each in kernels)
        return Reason.WAITS_FOR_OWN_KERNEL if is_own else reason


def _may_fit(stock: _Stock) -> ColumnElement[bool]:
    """Whether a run is within its owner's limits, and no larger than all there is."""
    use, quota, capacity = _use().subquery(), stock.quota, stock.capacity
    full = use.c.owner == runs.c.owner
    over = [
        (use.c.runs + 1, quota.runs),
        (use.c.cpu + runs.c.cpu, quota.cpu),
        (use.c.memory_bytes + runs.c.memory_bytes, quota.memory_bytes),
    ]
    is_over = or_(false(), *(used > most for used, most in over if most is not None))
    within = [(runs.c.cpu, capacity.cpu), (runs.c.memory_bytes, capacity.memory_bytes)]
    within += [(runs.c.cpu, quota.cpu), (runs.c.memory_bytes, quota.memory_bytes)]
    fits = and_(true(), *(asked <= most for asked, most in within if most is not None))
    return fits & not_(exists().where(full & is_over))


def _use() -> Select[Any]:
    """What each owner uses."""
    one = runs.alias("one")
    sums = (func.count().label("runs"), func.sum(one.c.cpu).label("cpu"), func.sum(one.c.memory_bytes))
    query = select(one.c.owner, *sums[:2], sums[2].label("memory_bytes"))
    query = query.join(attempts, attempts.c.run_id == one.c.id)
    return query.where(attempts.c.state.in_(LIVE_ATTEMPTS)).group_by(one.c.owner)


def _in_use(connection: Connection) -> tuple[_Use, dict[str, _Use]]:
    rows = connection.execute(_use())
    by_owner = {owner: _Use(count, float(cpu), int(memory)) for owner, count, cpu, memory in rows}
    total = _Use(
        sum(use.runs for use in by_owner.values()),
        sum(use.cpu for use in by_owner.values()),
        sum(use.memory_bytes for use in by_owner.values()),
    )
    return total, by_owner


def _free_devices(connection: Connection, capacity: Capacity) -> dict[str, list[str]]:
    held = set(connection.execute(select(leases.c.device)).scalars())
    return {resource: [one for one in devices if one not in held] for resource, devices in capacity.devices.items()}


def _obstacle(row: Row[Any], stock: _Stock) -> Reason | None:
    asked, own, quota = _Use(1, row.cpu, row.memory_bytes), stock.by_owner.get(row.owner, _Use()), stock.quota
    if _over(quota.runs, own.runs, asked.runs) or _full(quota.cpu, quota.memory_bytes, own, asked):
        return Reason.WAITS_FOR_USER_LIMIT
    if any(count > len(stock.free.get(resource, ())) for resource, count in row.accelerators.items()):
        return Reason.WAITS_FOR_ACCELERATOR
    if _full(stock.capacity.cpu, stock.capacity.memory_bytes, stock.used, asked):
        return Reason.WAITS_FOR_CAPACITY
    return None


def _runs_can_free(row: Row[Any], capacity: Capacity, kernels: set[str]) -> bool:
    """Whether a run gets its accelerators when enough other runs end, whatever kernels do."""
    there = {resource: len(set(devices) - kernels) for resource, devices in capacity.devices.items()}
    return all(count <= there.get(resource, 0) for resource, count in row.accelerators.items())


def _without_reserved(row: Row[Any], free: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """What is free for later runs when this one keeps what it needs of it."""
    return {resource: devices[row.accelerators.get(resource, 0) :] for resource, devices in free.items()}


def _could_fit(row: Row[Any], capacity: Capacity) -> bool:
    """Whether a run would fit into all there is; one that is larger than the machine has become holds up nobody."""
    return not _full(capacity.cpu, capacity.memory_bytes, _Use(), _Use(1, row.cpu, row.memory_bytes))


def _full(cpu: float | None, memory_bytes: int | None, used: _Use, asked: _Use) -> bool:
    return _over(cpu, used.cpu, asked.cpu) or _over(memory_bytes, used.memory_bytes, asked.memory_bytes)


def _over(limit: float | None, used: float, wanted: float) -> bool:
    return limit is not None and used + wanted > limit


def _take(connection: Connection, row: Row[Any], free: Mapping[str, Sequence[str]]) -> Claim:
    crash_point("service.claim.before")
    n, now = row.attempt + 1, utcnow()
    token, token_hash = new_token()
    fresh = {"run_id": row.id, "n": n, "state": AttemptState.STARTING.value, "token_hash": token_hash}
    connection.execute(insert(attempts).values(**fresh, usage={}, created_at=now, last_seen_at=now))
    devices = {resource: list(free[resource][:count]) for resource, count in row.accelerators.items() if count}
    for resource, ids in devices.items():
        for device in ids:
            lease = {"device": device, "resource": resource, "holder": holder_of(row.id, n), "owner": row.owner}
            connection.execute(insert(leases).values(**lease, since=now))
    crash_point("service.claim.within")
    move(connection, row, RunState.STARTING, attempt=n, not_before=None)
    return Claim(row.id, n, token, devices)
