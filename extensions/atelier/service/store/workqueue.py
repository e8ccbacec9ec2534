"""The queue: which waiting run is next, and its claim with all it needs, in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from atelier.crash_points import crash_point
from atelier.quantities import utcnow
from atelier.records import REASON_TEXT, AttemptState, Reason, RunState
from atelier.service.store.database import Database, next_change
from atelier.service.store.leases import KERNEL
from atelier.service.store.lifecycle import LIVE_ATTEMPTS, holder_of, live_attempt, move, new_token
from atelier.service.store.ordering import PATIENCE_S, Line, is_queued, note_turn
from atelier.service.store.schema import attempts, leases, runs

MOST_TOLD = 100
"""Of so many of the queue it is worked out why they wait; those farther back wait for their turn."""

_CLAIMED = tuple(runs.c[name] for name in "id owner state epoch attempt reason cpu memory_bytes accelerators".split())


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
            row, waits = _first_that_fits(_waiting(queue, quota), stock)
            if row is None:
                return None, waits
            note_turn(connection, row.owner, is_late=row.id in queue.late)
            return _take(connection, row, stock.free), waits

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


def _waiting(queue: Line, quota: Quota) -> Iterator[Row[Any]]:
    """All that may start, however many: behind a crowd that waits for its owner's limit there may be one that can.

    Those of an owner who has as many runs as he may are left out where nobody is told of them.
    """
    late = (
        queue.connection.execute(select(*_CLAIMED).where(runs.c.id.in_(list(queue.late)))).all() if queue.late else []
    )
    yield from sorted(late, key=lambda row: list(queue.late).index(row.id))
    fair = queue.fair
    query = select(*_CLAIMED).join(fair, fair.c.id == runs.c.id)
    yield from queue.connection.execute(queue.in_turn(query, most=MOST_TOLD)).all()
    if quota.runs is not None:
        query = query.where(fair.c.live < quota.runs)
    yield from queue.connection.execute(queue.in_turn(query, most=None, after=MOST_TOLD))


def _first_that_fits(rows: Iterable[Row[Any]], stock: _Stock) -> tuple[Row[Any] | None, list[Wait]]:
    waits: list[Wait] = []
    blocked = False
    kernels = {lease.device for lease in stock.kernels}
    for row in rows:
        if blocked and len(waits) >= MOST_TOLD:
            break
        reason = _obstacle(row, stock)
        if reason is Reason.WAITS_FOR_ACCELERATOR:
            if _runs_can_free(row, stock.capacity, kernels):
                stock.free = _without_reserved(row, stock.free)
            if any(each.owner == row.owner and each.resource in row.accelerators for each in stock.kernels):
                reason = Reason.WAITS_FOR_OWN_KERNEL
        if reason is None and blocked:
            reason = Reason.WAITS_FOR_CAPACITY
        if reason is None:
            return row, waits
        if len(waits) < MOST_TOLD:
            waits.append(Wait(row.id, reason, row.reason != reason.value))
        blocked = blocked or (reason is Reason.WAITS_FOR_CAPACITY and _could_fit(row, stock.capacity))
    return None, waits


def _in_use(connection: Connection) -> tuple[_Use, dict[str, _Use]]:
    query = (
        select(runs.c.owner, func.count(), func.sum(runs.c.cpu), func.sum(runs.c.memory_bytes))
        .join(attempts, attempts.c.run_id == runs.c.id)
        .where(attempts.c.state.in_(LIVE_ATTEMPTS))
        .group_by(runs.c.owner)
    )
    by_owner = {owner: _Use(count, float(cpu), int(memory)) for owner, count, cpu, memory in connection.execute(query)}
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
