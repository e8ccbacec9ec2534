"""Accelerators by their id: who holds which. Runs hold theirs from claim to end, kernels while they renew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, delete, insert, select, update

from atelier.quantities import utcnow
from atelier.service.store.database import Database, stir
from atelier.service.store.schema import leases

KERNEL = "kernel:"
"""Begins the name of a holder that is a notebook's kernel; all others are attempts of runs."""

LIFETIME_S = 90.0
"""How long a kernel holds what it has without renewing."""


@dataclass(frozen=True)
class Lease:
    """One device and its holder. ``expires_at`` is None for a run, which holds it until it ends."""

    device: str
    resource: str
    holder: str
    owner: str
    since: datetime
    expires_at: datetime | None


class LeaseStore:
    """Leases are all or nothing, and a device has one holder at a time."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def hold(
        self, holder: str, *, owner: str, resource: str, devices: Sequence[str], count: int, lifetime_s: float
    ) -> list[str]:
        """Devices for a kernel, or its own ones again with a new lifetime; empty when not enough are free.

        Parameters
        ----------
        holder : str
            Name of the kernel, beginning with `KERNEL`.
        owner : str
            Whose kernel it is; another owner's lease is never renewed.
        resource, devices, count
            What is asked for, all devices of that resource there are, and how many of them.
        lifetime_s : float
            Seconds until the lease ends by itself.
        """
        expires_at = utcnow() + timedelta(seconds=lifetime_s)
        with self._db.write() as connection:
            mine = (leases.c.holder == holder) & (leases.c.owner == owner) & (leases.c.resource == resource)
            kept = list(connection.execute(select(leases.c.device).where(mine)).scalars())
            if kept:
                connection.execute(update(leases).where(mine).values(expires_at=expires_at))
                return kept
            taken = set(connection.execute(select(leases.c.device)).scalars())
            free = [device for device in devices if device not in taken][:count]
            if len(free) < count:
                return []
            for device in free:
                row = {"device": device, "resource": resource, "holder": holder, "owner": owner, "since": utcnow()}
                connection.execute(insert(leases).values(**row, expires_at=expires_at))
            stir(connection)
            return free

    def release(self, holder: str, owner: str) -> None:
        """Give back all that an owner's kernel holds; nothing when it holds nothing."""
        with self._db.write() as connection:
            connection.execute(delete(leases).where(leases.c.holder == holder, leases.c.owner == owner))
            stir(connection)

    def expire(self, now: datetime) -> int:
        """End the leases of kernels that have stopped renewing; how many there were."""
        with self._db.read() as connection:
            due = leases.c.expires_at < now
            if connection.execute(select(leases.c.device).where(due)).first() is None:
                return 0
        with self._db.write() as connection:
            stir(connection)
            return connection.execute(delete(leases).where(due)).rowcount

    def prolong(self, lifetime_s: float) -> None:
        """Give the leases of all kernels a whole lifetime from now on, whatever the clock said before.

        Nobody may have been there to renew them with.
        """
        until = utcnow() + timedelta(seconds=lifetime_s)
        with self._db.write() as connection:
            connection.execute(update(leases).where(leases.c.expires_at.is_not(None)).values(expires_at=until))

    def held(self) -> list[Lease]:
        """All leases, by device."""
        with self._db.read() as connection:
            return [_lease_of(row) for row in connection.execute(select(leases).order_by(leases.c.device))]


def _lease_of(row: Row[Any]) -> Lease:
    return Lease(row.device, row.resource, row.holder, row.owner, row.since, row.expires_at)
