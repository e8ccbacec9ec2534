"""What must be true of all rows of a store at any time, read from the tables and from nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, select

from atelier.records import RUN_MOVES, AttemptState, RunState
from atelier.service.store import Capacity, Quota, Store, holder_of
from atelier.service.store.leases import KERNEL
from atelier.service.store.lifecycle import LIVE_ATTEMPTS
from atelier.service.store.schema import attempts, counters, leases, removed_runs, runs, submissions, transitions

LIVE_RUNS = (RunState.STARTING.value, RunState.RUNNING.value)


@dataclass(frozen=True)
class Rows:
    """The tables at one moment."""

    runs: Sequence[Row[Any]]
    attempts: Sequence[Row[Any]]
    transitions: Sequence[Row[Any]]
    leases: Sequence[Row[Any]]
    removed: Sequence[Row[Any]]
    submissions: Sequence[Row[Any]]
    newest_change: int


def rows_of(store: Store) -> Rows:
    """All rows, read in one transaction."""
    with store.database.read() as connection:
        return Rows(
            runs=connection.execute(select(runs)).all(),
            attempts=connection.execute(select(attempts).order_by(attempts.c.n)).all(),
            transitions=connection.execute(select(transitions).order_by(transitions.c.seq)).all(),
            leases=connection.execute(select(leases)).all(),
            removed=connection.execute(select(removed_runs)).all(),
            submissions=connection.execute(select(submissions)).all(),
            newest_change=connection.execute(select(counters.c.value).where(counters.c.name == "changes")).scalar_one(),
        )


def faults_of(rows: Rows, capacity: Capacity, quota: Quota) -> list[str]:
    """Everything that is wrong, a sentence each; empty when all is well."""
    found: list[str] = []
    for run in rows.runs:
        tries = [attempt for attempt in rows.attempts if attempt.run_id == run.id]
        found += _of_moves(run, [line for line in rows.transitions if line.run_id == run.id])
        found += _of_attempts(run, tries)
        found += _of_end(run, tries)
    found += _of_leases(rows)
    found += _of_use(rows, capacity, quota)
    found += _of_changes(rows)
    found += _of_removed(rows)
    return found


def _of_moves(run: Row[Any], lines: Sequence[Row[Any]]) -> Iterator[str]:
    """The chain begins with nothing, hangs together, has only moves of the table, and ends where the run is."""
    states = [None, *(line.after for line in lines)]
    if [line.before for line in lines] != states[:-1] or states[1:2] != ["created"]:
        yield f"{run.id}: its moves do not hang together: {[(line.before, line.after) for line in lines]}"
    for line in lines[1:]:
        if line.after not in RUN_MOVES[RunState(line.before)]:
            yield f"{run.id} made a move from {line.before} to {line.after}"
    if states[-1] != run.state:
        yield f"{run.id} is {run.state}, and its last move was to {states[-1]}"
    if run.epoch != len(lines) - 1:
        yield f"{run.id} has the epoch {run.epoch} after {len(lines) - 1} moves"


def _of_attempts(run: Row[Any], tries: Sequence[Row[Any]]) -> Iterator[str]:
    """They are counted from 1, each but the last is over, and the last one lives exactly while its run does."""
    if [attempt.n for attempt in tries] != list(range(1, run.attempt + 1)):
        yield f"{run.id} is at attempt {run.attempt} and has {[attempt.n for attempt in tries]}"
    living = [attempt for attempt in tries if attempt.state in LIVE_ATTEMPTS]
    wanted = [(run.attempt, run.state)] if run.state in LIVE_RUNS else []
    if [(attempt.n, attempt.state) for attempt in living] != wanted:
        yield f"{run.id} is {run.state}, and its living attempts are {[(one.n, one.state) for one in living]}"
    for attempt in tries:
        if (attempt.ended_at is None) != (attempt.state in LIVE_ATTEMPTS):
            yield f"{run.id}/{attempt.n} is {attempt.state}, and its end is {attempt.ended_at}"


def _of_end(run: Row[Any], tries: Sequence[Row[Any]]) -> Iterator[str]:
    is_final = RunState(run.state).is_final
    if is_final != (run.ended_at is not None):
        yield f"{run.id} is {run.state}, and its end is {run.ended_at}"
    if is_final and not run.message:
        yield f"{run.id} is {run.state} without a word"
    done = [attempt.n for attempt in tries if attempt.state == AttemptState.SUCCEEDED]
    if run.state == RunState.SUCCEEDED and done != [run.attempt]:
        yield f"{run.id} has succeeded, and its attempts that did are {done}"


def _of_leases(rows: Rows) -> Iterator[str]:
    """An attempt holds exactly what its run needs while it lives, and nothing afterwards."""
    accelerators = {run.id: run.accelerators for run in rows.runs}
    wanted = {
        holder_of(attempt.run_id, attempt.n): Counter(accelerators[attempt.run_id])
        for attempt in rows.attempts
        if attempt.state in LIVE_ATTEMPTS
    }
    held: dict[str, Counter[str]] = {}
    for lease in rows.leases:
        if lease.holder.startswith(KERNEL) != (lease.expires_at is not None):
            yield f"the lease of {lease.holder} ends at {lease.expires_at}"
        if not lease.holder.startswith(KERNEL):
            held.setdefault(lease.holder, Counter())[lease.resource] += 1
    for holder in sorted(held.keys() | wanted.keys()):
        has, needs = held.get(holder, Counter()), wanted.get(holder, Counter())
        if has != needs:
            yield f"{holder} holds {dict(has)} and is to hold {dict(needs)}"


def _of_use(rows: Rows, capacity: Capacity, quota: Quota) -> Iterator[str]:
    """Nobody uses more than one user may, and all together no more than there is."""
    living = {attempt.run_id for attempt in rows.attempts if attempt.state in LIVE_ATTEMPTS}
    working = [run for run in rows.runs if run.id in living]
    for owner in {run.owner for run in working}:
        mine = [run for run in working if run.owner == owner]
        if quota.runs is not None and len(mine) > quota.runs:
            yield f"{owner} has {len(mine)} runs at once of {quota.runs}"
        if quota.cpu is not None and sum(run.cpu for run in mine) > quota.cpu:
            yield f"{owner} uses {sum(run.cpu for run in mine)} cores of {quota.cpu}"
    if capacity.cpu is not None and sum(run.cpu for run in working) > capacity.cpu:
        yield f"{sum(run.cpu for run in working)} cores of {capacity.cpu} are in use"


def _of_changes(rows: Rows) -> Iterator[str]:
    numbers = [row.change for row in (*rows.runs, *rows.removed)]
    if len(set(numbers)) != len(numbers):
        yield f"a change number was given twice: {sorted(numbers)}"
    if max(numbers, default=0) > rows.newest_change:
        yield f"the newest change is {max(numbers)}, and the counter is at {rows.newest_change}"


def _of_removed(rows: Rows) -> Iterator[str]:
    there, gone = {run.id for run in rows.runs}, {mark.id for mark in rows.removed}
    if there & gone:
        yield f"{there & gone} are there and removed"
    if strays := {row.run_id for row in (*rows.attempts, *rows.transitions)} - there:
        yield f"rows are left of runs that are not there: {strays}"
    if unknown := {row.run_id for row in rows.submissions} - there - gone:
        yield f"keys lead to runs that never were: {unknown}"
