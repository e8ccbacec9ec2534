"""Runs in the store: submit, read, list, and every move they make."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Select, Table, and_, func, or_, select, update
from sqlalchemy import delete as sql_delete

from atelier.crash_points import crash_point
from atelier.errors import Conflict
from atelier.quantities import utcnow
from atelier.records import (
    AttemptState,
    Reason,
    Run,
    RunState,
)
from atelier.service.store.assembly import attempt_of, run_of
from atelier.service.store.database import Database, next_change
from atelier.service.store.lifecycle import (
    LIVE_ATTEMPTS,
    Outcome,
    after_attempt,
    end,
    end_attempt,
    holder_of,
    live_attempt,
    live_pair,
    move,
    ran,
    run_row,
    unknown_run,
)
from atelier.service.store.ordering import PATIENCE_S, places
from atelier.service.store.removals import forget
from atelier.service.store.schema import artifacts, attempts, checkpoints, leases, removed_runs, runs, submissions
from atelier.service.store.submits import NewRun, digest_of, insert_run, known_submit, note_submit

MOST_CHANGES = 500
_AFTER_ALL = "z" * 10
"""No id that begins with a prefix comes after the prefix with this, in whichever order a database has texts."""


class RunStore:
    """Runs and their attempts. Every move is compare-and-set on the run's epoch and leaves a row in ``transitions``."""

    def __init__(self, database: Database, patience_s: float = PATIENCE_S) -> None:
        self._db = database
        self.patience_s = patience_s

    # -- submit ---------------------------------------------------------------------------------------------------
    def submit(self, new: NewRun) -> tuple[Run, bool]:
        """The run, and whether it is new: the same key with the same spec gives the run that it made before.

        Raises
        ------
        Conflict
            ``key_reused``: the key came with another spec. ``run_removed``: the run that it made was removed.
        """
        digest = digest_of(new.spec)
        with self._db.write() as connection:
            change = next_change(connection)
            known = known_submit(connection, new, digest)
            if known is None:
                run_id = insert_run(connection, new, change)
                note_submit(connection, new, digest, run_id)
        run_id = known or run_id
        return self.get(run_id), known is None

    def seen_submission(self, owner: str, key: str) -> str | None:
        """The run that a key has made, or None."""
        mine = (submissions.c.owner == owner) & (submissions.c.key == key)
        with self._db.read() as connection:
            return connection.execute(select(submissions.c.run_id).where(mine)).scalar()

    # -- read -----------------------------------------------------------------------------------------------------
    def get(self, run_id: str, owner: str | None = None) -> Run:
        """One run; with an owner, only that owner's.

        Raises
        ------
        NotFound
            ``unknown_run``: no such run, or it is somebody else's.
        """
        with self._db.read() as connection:
            row = run_row(connection, run_id)
            if row is None or (owner is not None and row.owner != owner):
                raise unknown_run(run_id)
            return self._assemble(connection, [row])[0]

    def page(
        self, owner: str, *, states: Sequence[RunState], limit: int, before: tuple[datetime, str] | None
    ) -> list[Run]:
        """Newest first; ``before`` is the creation time and id of the last run of the page before."""
        query = select(runs).where(runs.c.owner == owner)
        if states:
            query = query.where(runs.c.state.in_([state.value for state in states]))
        if before is not None:
            moment, run_id = before
            older = or_(runs.c.created_at < moment, and_(runs.c.created_at == moment, runs.c.id < run_id))
            query = query.where(older)
        with self._db.read() as connection:
            rows = connection.execute(query.order_by(runs.c.created_at.desc(), runs.c.id.desc()).limit(limit)).all()
            return self._assemble(connection, rows)

    def find(self, owner: str, prefix: str) -> list[str]:
        """Ids of an owner's runs that begin with a prefix, at most three of them."""
        near = runs.c.id.between(prefix, prefix + _AFTER_ALL)  # what an index finds; LIKE alone looks at every run
        mine = (runs.c.owner == owner) & near & runs.c.id.startswith(prefix, autoescape=True)
        with self._db.read() as connection:
            return list(connection.execute(select(runs.c.id).where(mine).limit(3)).scalars())

    def changed_since(self, owner: str, change: int, run_id: str | None = None) -> list[tuple[int, Run | str]]:
        """What became different after a change number: (number, run), or (number, id) of a removed one; in order.

        At most `MOST_CHANGES`; with ``run_id`` only those of this run.
        """

        def later(table: Table) -> Select[Any]:
            these = (table.c.owner == owner) & (table.c.change > change)
            if run_id is not None:
                these &= table.c.id == run_id
            return select(table).where(these).order_by(table.c.change).limit(MOST_CHANGES)

        with self._db.read() as connection:
            rows = connection.execute(later(runs)).all()
            changes: list[tuple[int, Run | str]] = [
                (row.change, run) for row, run in zip(rows, self._assemble(connection, rows), strict=True)
            ]
            changes += [(row.change, row.id) for row in connection.execute(later(removed_runs))]
        return sorted(changes, key=lambda change: change[0])[:MOST_CHANGES]

    def newest_change(self, owner: str) -> int:
        """The number of an owner's latest change; 0 when there was none."""
        with self._db.read() as connection:
            newest = (select(func.max(table.c.change)).where(table.c.owner == owner) for table in (runs, removed_runs))
            return max(int(connection.execute(query).scalar() or 0) for query in newest)

    def _assemble(self, connection: Connection, rows: Sequence[Row[Any]]) -> list[Run]:
        ids = [row.id for row in rows]
        tries: dict[str, list[Any]] = {run_id: [] for run_id in ids}
        for row in connection.execute(select(attempts).where(attempts.c.run_id.in_(ids)).order_by(attempts.c.n)):
            tries[row.run_id].append(attempt_of(row))
        of_each = select(artifacts.c.run_id, func.count().label("files")).group_by(artifacts.c.run_id)
        kept = of_each.where(artifacts.c.run_id.in_(ids))
        counts = {row.run_id: int(row.files) for row in connection.execute(kept)}
        steps = _newest_steps(connection, ids)
        waiting = [row.id for row in rows if row.state == RunState.QUEUED]
        at = places(connection, waiting, self.patience_s)
        return [
            run_of(
                row,
                tries[row.id],
                artifacts=counts.get(row.id, 0),
                position=at.get(row.id),
                checkpoint_step=steps.get(row.id),
            )
            for row in rows
        ]

    # -- moves ----------------------------------------------------------------------------------------------------
    def queue(self, run_id: str) -> None:
        """created → queued."""
        with self._db.write() as connection:
            row = run_row(connection, run_id)
            if row is not None and row.state == RunState.CREATED:
                now, limit_s = utcnow(), row.spec.get("queue_timeout_s")
                until = now + timedelta(seconds=limit_s) if limit_s else None
                move(connection, row, RunState.QUEUED, queued_at=now, turn_at=now, queue_until=until)

    def cancel(self, run_id: str, *, grace_s: float) -> Run:
        """Ask for a run's end: a waiting one is final at once, a live one has ``grace_s`` once it is told.

        Asked again, the shorter time stands.
        """
        with self._db.write() as connection:
            row = run_row(connection, run_id)
            if row is None:
                raise unknown_run(run_id)
            state = RunState(row.state)
            if state in {RunState.CREATED, RunState.QUEUED}:
                end(connection, row, RunState.CANCELLED, Reason.CANCELLED_BY_USER, None, desired="cancelled")
            elif not state.is_final:
                change = next_change(connection)
                connection.execute(update(runs).where(runs.c.id == run_id).values(desired="cancelled", change=change))
                live = live_attempt(run_id, row.attempt)
                longer = attempts.c.stop_grace_s.is_(None) | (attempts.c.stop_grace_s > grace_s)
                connection.execute(update(attempts).where(live, longer).values(stop_grace_s=grace_s))
                connection.execute(update(attempts).where(live, attempts.c.stop.is_(None)).values(stop="cancel"))
        return self.get(run_id)

    def stop(self, run_id: str, n: int, why: str, *, grace_s: float) -> None:
        """Tell a live attempt to stop (``deadline``, ``stalled``); an earlier order stands."""
        with self._db.write() as connection:
            waiting = live_attempt(run_id, n) & attempts.c.stop.is_(None)
            connection.execute(update(attempts).where(waiting).values(stop=why, stop_grace_s=grace_s))

    def give_up(self, run_id: str, reason: Reason, message: str) -> None:
        """End a run that no attempt was made of."""
        with self._db.write() as connection:
            row = run_row(connection, run_id)
            if row is not None and row.state in {RunState.CREATED, RunState.QUEUED}:
                end(connection, row, RunState.FAILED, reason, message)

    def expire(self, run_id: str) -> Run:
        """queued → timed_out: it waited longer than its queue limit."""
        with self._db.write() as connection:
            row = run_row(connection, run_id)
            if row is not None and row.state == RunState.QUEUED:
                end(connection, row, RunState.TIMED_OUT, Reason.QUEUE_DEADLINE, None)
        return self.get(run_id)

    def work_ended(self, run_id: str, n: int, *, ran_s: float | None = None) -> None:
        """Note that an attempt's work has ended and is being delivered: no limit of the work holds any more."""
        this = live_attempt(run_id, n)
        with self._db.write() as connection:
            if ran_s is not None:
                connection.execute(update(attempts).where(this).values(**ran(ran_s)))
            first = attempts.c.work_ended_at.is_(None)
            connection.execute(update(attempts).where(this, first).values(work_ended_at=utcnow()))

    def check_live(self, run_id: str, n: int) -> None:
        """Refuse (``stale_attempt``) an attempt that has ended or was replaced; asked at every call of an agent."""
        with self._db.read() as connection:
            live_pair(connection, run_id, n)

    def is_live(self, run_id: str, n: int) -> bool:
        """Whether an attempt has not ended."""
        with self._db.read() as connection:
            return connection.execute(select(attempts.c.n).where(live_attempt(run_id, n))).first() is not None

    def ordered_stop(self, run_id: str, n: int) -> str | None:
        """Why an attempt was told to stop; None when it wasn't."""
        this = (attempts.c.run_id == run_id) & (attempts.c.n == n)
        with self._db.read() as connection:
            return connection.execute(select(attempts.c.stop).where(this)).scalar()

    def launched(self, run_id: str, n: int) -> int:
        """Count a launch of an attempt's agent; the number of launches so far."""
        return self._count(run_id, n, "launches")

    def recovering(self, run_id: str, n: int) -> int:
        """Count a try at bringing in what a dead agent left; the number of tries so far."""
        return self._count(run_id, n, "recoveries")

    def tell_start(self, run_id: str, n: int, message: str, *, hint: str) -> bool:
        """Say how the start of an attempt goes; False when that is said already, or it is not starting any more."""
        this = (runs.c.id == run_id) & (runs.c.attempt == n) & (runs.c.state == RunState.STARTING.value)
        news = runs.c.message != message
        with self._db.write() as connection:
            values = {"message": message, "hint": hint, "change": next_change(connection)}
            return connection.execute(update(runs).where(this, news).values(**values)).rowcount == 1

    def _count(self, run_id: str, n: int, column: str) -> int:
        this = (attempts.c.run_id == run_id) & (attempts.c.n == n)
        bump = update(attempts).where(this).values({column: attempts.c[column] + 1}).returning(attempts.c[column])
        with self._db.write() as connection:
            return int(connection.execute(bump).scalar_one())

    def started(self, run_id: str, n: int, environment: dict[str, Any] | None) -> None:
        """starting → running, of the attempt and its run; nothing when it already is.

        Raises
        ------
        Conflict
            ``stale_attempt``: the attempt has ended or another one has taken its place.
        """
        now = utcnow()
        with self._db.write() as connection:
            row, attempt = live_pair(connection, run_id, n)
            if attempt.state == AttemptState.RUNNING:
                return
            this = (attempts.c.run_id == run_id) & (attempts.c.n == n)
            values = {"state": AttemptState.RUNNING.value, "started_at": now, "last_seen_at": now}
            connection.execute(update(attempts).where(this).values(**values))
            extra = {"environment": environment} if environment else {}
            move(connection, row, RunState.RUNNING, started_at=row.started_at or now, **extra)

    def finish(self, run_id: str, n: int, outcome: Outcome) -> Run:
        """End an attempt; its run becomes final, or is queued for another attempt. Called again, it changes nothing."""
        with self._db.write() as connection:
            this = (attempts.c.run_id == run_id) & (attempts.c.n == n)
            attempt = connection.execute(select(attempts).where(this)).first()
            row = run_row(connection, run_id)
            if attempt is not None and row is not None and not AttemptState(attempt.state).is_final:
                end_attempt(connection, this, outcome)
                crash_point("service.finish.within")
                connection.execute(sql_delete(leases).where(leases.c.holder == holder_of(run_id, n)))
                after_attempt(connection, row, n, outcome)
        return self.get(run_id)

    def remove(self, run_id: str) -> None:
        """Forget a final run and all that the store has of it; a bare mark stays, so that every view learns of it."""
        with self._db.write() as connection:
            row = run_row(connection, run_id)
            if row is None:
                raise unknown_run(run_id)
            if not RunState(row.state).is_final:
                raise Conflict(
                    "run_is_live", f"Run {run_id} is {row.state}.", hint=f"Cancel it first: atelier cancel {run_id}"
                )
            if row.pinned:
                hint = f"Take the pin away first: atelier pin {run_id} --undo"
                raise Conflict("run_is_pinned", f"Run {run_id} is pinned.", hint=hint)
            forget(connection, row)

    # -- what the reconciler reads --------------------------------------------------------------------------------
    def live_attempts(self) -> list[Row[Any]]:
        """Attempts that are starting or running, joined with their runs (the attempt's columns as ``attempt_*``)."""
        columns = [column.label(f"attempt_{column.name}") for column in attempts.c]
        query = (
            select(runs, *columns)
            .join(attempts, (attempts.c.run_id == runs.c.id) & attempts.c.state.in_(LIVE_ATTEMPTS))
            .order_by(runs.c.created_at)
        )
        with self._db.read() as connection:
            return list(connection.execute(query).all())

    def in_state(self, state: RunState, before: datetime) -> list[str]:
        """Ids of runs in a state that were created before a moment."""
        these = (runs.c.state == state.value) & (runs.c.created_at < before)
        with self._db.read() as connection:
            return list(connection.execute(select(runs.c.id).where(these)).scalars())

    def overdue(self, now: datetime) -> list[str]:
        """Ids of runs that have waited longer than their queue limit."""
        these = (runs.c.state == RunState.QUEUED.value) & (runs.c.queue_until < now)
        with self._db.read() as connection:
            return list(connection.execute(select(runs.c.id).where(these)).scalars())

    def postpone(self, by: timedelta) -> None:
        """Move the queue limits of all that wait: the clock that they go by was set by that much."""
        waiting = (runs.c.state == RunState.QUEUED.value) & runs.c.queue_until.is_not(None)
        with self._db.write() as connection:
            for row in connection.execute(select(runs.c.id, runs.c.queue_until).where(waiting)).all():
                until = {"queue_until": row.queue_until + by}
                connection.execute(update(runs).where(runs.c.id == row.id).values(**until))

    def recorded(self, run_id: str) -> None:
        """Note that the record of a final run is stored beside the database."""
        with self._db.write() as connection:
            connection.execute(update(runs).where(runs.c.id == run_id).values(recorded=True))

    def unrecorded(self, before: datetime) -> list[str]:
        """Ids of runs that ended before a moment and whose records were not stored since."""
        these = runs.c.recorded.is_(False) & (runs.c.ended_at < before)
        with self._db.read() as connection:
            return list(connection.execute(select(runs.c.id).where(these)).scalars())

    def ran_s(self, run_id: str) -> float:
        """Seconds for which the work of a run's ended attempts ran, as their agents have told: by no clock of ours.

        Of an agent that was killed it is what it told last. So neither the time for which the service was away nor a
        clock that was set counts.
        """
        ended = (attempts.c.run_id == run_id) & attempts.c.ended_at.is_not(None)
        with self._db.read() as connection:
            return float(connection.execute(select(func.sum(attempts.c.ran_s)).where(ended)).scalar() or 0.0)

    def counts(self) -> dict[RunState, int]:
        """How many runs are in each state; states without one are left out."""
        query = select(runs.c.state, func.count()).group_by(runs.c.state)
        with self._db.read() as connection:
            return {RunState(state): count for state, count in connection.execute(query)}

    def by_token(self, token_hash: str) -> Row[Any] | None:
        """The attempt that a run token belongs to, with its run's owner and size; None for an unknown token."""
        query = select(attempts, runs.c.owner, runs.c.project, runs.c.cpu, runs.c.memory_bytes)
        query = query.join(runs, runs.c.id == attempts.c.run_id)
        with self._db.read() as connection:
            return connection.execute(query.where(attempts.c.token_hash == token_hash)).first()


def _newest_steps(connection: Connection, run_ids: Sequence[str]) -> dict[str, int]:
    """The step of each run's newest checkpoint; of runs without one nothing."""
    newest = select(checkpoints.c.run_id, func.max(checkpoints.c.step).label("step")).group_by(checkpoints.c.run_id)
    return {row.run_id: int(row.step) for row in connection.execute(newest.where(checkpoints.c.run_id.in_(run_ids)))}
