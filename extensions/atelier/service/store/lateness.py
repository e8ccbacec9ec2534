"""Which waiting runs may start, which pause, and which have waited for so long that they go before all others."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, not_, or_, select

from atelier.records import RunState
from atelier.service.store.retries import JITTER, LONGEST_PAUSE_S
from atelier.service.store.schema import runs, turns

is_queued = runs.c.state == RunState.QUEUED.value

_LONGEST_PAUSE = timedelta(seconds=LONGEST_PAUSE_S * (1 + JITTER))


def is_due(now: datetime) -> ColumnElement[bool]:
    """Whether a run pauses no longer; no pause is longer than the longest, whatever the clock has done since."""
    return or_(runs.c.not_before.is_(None), not_(pauses(now)))


def pauses(now: datetime) -> ColumnElement[bool]:
    """Whether a run pauses before its next attempt."""
    return and_(runs.c.not_before > now, runs.c.not_before <= now + _LONGEST_PAUSE)


def late_runs(connection: Connection, now: datetime, cutoff: datetime) -> dict[str, str]:
    """The longest waiting run of each owner who had no late turn since the cutoff, when it has waited since before.

    Id → owner, the longest waiting first. What has paused has waited since its pause's end.
    """
    waits = is_queued & (runs.c.queued_at <= cutoff)
    if connection.execute(select(runs.c.id).where(waits).limit(1)).first() is None:
        return {}
    had = select(turns.c.owner).where(turns.c.late_at > cutoff)
    oldest = [*_longest_unpaused(connection, cutoff), *_longest_paused(connection, cutoff)]
    held = set(connection.execute(had).scalars())
    found: dict[str, str] = {}
    for _, run_id, owner in sorted(oldest):
        if owner not in held:
            held.add(owner)
            found[run_id] = owner
    return found


def _longest_unpaused(connection: Connection, cutoff: datetime) -> list[tuple[datetime, str, str]]:
    """Of each owner the one that has waited longest of those that never paused: since when, its id, its owner."""
    waits = is_queued & runs.c.not_before.is_(None) & (runs.c.queued_at <= cutoff)
    owners = select(runs.c.owner).where(waits).distinct().subquery()
    first = select(runs.c.id).where(waits, runs.c.owner == owners.c.owner)
    first = first.order_by(runs.c.queued_at, runs.c.id).limit(1).correlate(owners)
    oldest = runs.alias("oldest")
    query = select(oldest.c.queued_at, oldest.c.id, oldest.c.owner)
    query = query.select_from(owners).join(oldest, oldest.c.id == first.scalar_subquery())
    return [(row.queued_at, row.id, row.owner) for row in connection.execute(query)]


def _longest_paused(connection: Connection, cutoff: datetime) -> list[tuple[datetime, str, str]]:
    """The same of those whose pause is over: all of them, which are few."""
    waits = is_queued & (runs.c.not_before <= cutoff) & (runs.c.queued_at <= cutoff)
    query = select(runs.c.not_before, runs.c.id, runs.c.owner).where(waits)
    return [(row.not_before, row.id, row.owner) for row in connection.execute(query)]
