"""The queue: which waiting run is next, and its claim with all it needs, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, Select, func, insert, or_, select, update

from atelier.crash_points import crash_point
from atelier.quantities import utcnow
from atelier.records import AttemptState, Reason, RunState
from atelier.service.store.database import Database, next_change
from atelier.service.store.leases import KERNEL
from atelier.service.store.lifecycle import LIVE_ATTEMPTS, holder_of, move, new_token
from atelier.service.store.schema import attempts, leases, runs


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
    """A run that can't start yet, and why."""

    run_id: str
    reason: Reason


@dataclass
class _Use:
    runs: int = 0
    cpu: float = 0.0
    memory_bytes: int = 0


class Queue:
    """Claims are all or nothing: attempt row, token and device leases come in one write transaction."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def claim(self, capacity: Capacity, quota: Quota) -> tuple[Claim | None, list[Wait]]:
        """The first waiting run that fits, claimed; and those before it that don't fit, with the reason.

        A run that waits for capacity holds up all later ones (first in, first out), so that small runs don't starve a
        large one. One that waits for accelerators that only other runs hold keeps those that are free, which holds up
        later runs for the same kind and nobody else; one that waits for its owner's limit or for kernels, which people
        end and no queue, holds up nobody.
        """
        waits: list[Wait] = []
        with self._db.read() as connection:
            if connection.execute(_waiting().limit(1)).first() is None:
                return None, waits
        with self._db.write() as connection:
            used, by_owner = _in_use(connection)
            free, kernels = _free_devices(connection, capacity), _held_by_kernels(connection)
            blocked = False
            for row in connection.execute(_waiting()).all():
                own = by_owner.get(row.owner, _Use())
                reason = _obstacle(row, used=used, own=own, capacity=capacity, quota=quota, free=free)
                if reason is Reason.WAITS_FOR_ACCELERATOR:
                    if _runs_can_free(row, capacity, kernels):
                        free = _without_reserved(row, free)
                    if _own_kernel_holds(connection, row):
                        reason = Reason.WAITS_FOR_OWN_KERNEL
                if reason is None and blocked:
                    reason = Reason.WAITS_FOR_CAPACITY
                if reason is None:
                    return _take(connection, row, free), waits
                waits.append(Wait(row.id, reason))
                blocked = blocked or (reason is Reason.WAITS_FOR_CAPACITY and _could_fit(row, capacity))
        return None, waits

    def first(self, most: int) -> list[tuple[str, str]]:
        """The first of those that wait, in order, also for their next attempt: id and owner."""
        waiting = select(runs.c.id, runs.c.owner).where(runs.c.state == RunState.QUEUED.value)
        query = waiting.order_by(runs.c.queued_at, runs.c.id).limit(most)
        with self._db.read() as connection:
            return [(row.id, row.owner) for row in connection.execute(query)]

    def moved(self, run_ids: Sequence[str]) -> None:
        """Let watchers read these anew, as far as they still wait: their places in the queue are others."""
        with self._db.write() as connection:
            for run_id in run_ids:
                this = (runs.c.id == run_id) & (runs.c.state == RunState.QUEUED.value)
                connection.execute(update(runs).where(this).values(change=next_change(connection)))


def _waiting() -> Select[Any]:
    """All of them, however many: behind a crowd that waits for its owner's limit there may be one that can start."""
    due = or_(runs.c.not_before.is_(None), runs.c.not_before <= utcnow())
    query = select(runs).where(runs.c.state == RunState.QUEUED.value, due)
    return query.order_by(runs.c.queued_at, runs.c.id)


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


def _obstacle(
    row: Row[Any], *, used: _Use, own: _Use, capacity: Capacity, quota: Quota, free: Mapping[str, Sequence[str]]
) -> Reason | None:
    asked = _Use(1, row.cpu, row.memory_bytes)
    if _over(quota.runs, own.runs, asked.runs) or _full(quota.cpu, quota.memory_bytes, own, asked):
        return Reason.WAITS_FOR_USER_LIMIT
    if any(count > len(free.get(resource, ())) for resource, count in row.accelerators.items()):
        return Reason.WAITS_FOR_ACCELERATOR
    if _full(capacity.cpu, capacity.memory_bytes, used, asked):
        return Reason.WAITS_FOR_CAPACITY
    return None


def _held_by_kernels(connection: Connection) -> set[str]:
    return set(connection.execute(select(leases.c.device).where(leases.c.holder.startswith(KERNEL))).scalars())


def _runs_can_free(row: Row[Any], capacity: Capacity, kernels: set[str]) -> bool:
    """Whether a run gets its accelerators when enough other runs end, whatever kernels do."""
    there = {resource: len(set(devices) - kernels) for resource, devices in capacity.devices.items()}
    return all(count <= there.get(resource, 0) for resource, count in row.accelerators.items())


def _without_reserved(row: Row[Any], free: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """What is free for later runs when this one keeps what it needs of it."""
    return {resource: devices[row.accelerators.get(resource, 0) :] for resource, devices in free.items()}


def _own_kernel_holds(connection: Connection, row: Row[Any]) -> bool:
    kernels = (leases.c.owner == row.owner) & leases.c.holder.startswith(KERNEL)
    wanted = leases.c.resource.in_(list(row.accelerators))
    return connection.execute(select(leases.c.device).where(kernels, wanted)).first() is not None


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
