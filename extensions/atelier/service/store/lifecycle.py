"""The moves of a run and its attempts inside a write transaction: compare-and-set, and what follows from an end."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Row, case, insert, select, update

from atelier.errors import Conflict, NotFound
from atelier.quantities import utcnow
from atelier.records import (
    FINAL_STATES,
    REASON_TEXT,
    RUN_MOVES,
    AttemptState,
    ErrorReport,
    Reason,
    RunSpec,
    RunState,
)
from atelier.service.store.database import next_change, stir
from atelier.service.store.retries import Try, fruitless_in_a_row, pause_before_next
from atelier.service.store.schema import attempts, runs, transitions

LIVE_ATTEMPTS = (AttemptState.STARTING.value, AttemptState.RUNNING.value)


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended."""

    state: AttemptState
    reason: Reason | None = None
    message: str | None = None
    exit_code: int | None = None
    error: ErrorReport | None = None
    ran_s: float | None = None
    hint: str | None = None
    """The next action, where the reason's own doesn't fit."""


WORDS = {
    RunState.CREATED: "Being prepared.",
    RunState.QUEUED: "Waiting for its turn.",
    RunState.STARTING: "Starting.",
    RunState.RUNNING: "Running.",
    RunState.SUCCEEDED: "Done.",
}
_FINAL_FOR = {
    AttemptState.SUCCEEDED: RunState.SUCCEEDED,
    AttemptState.FAILED: RunState.FAILED,
    AttemptState.CANCELLED: RunState.CANCELLED,
    AttemptState.TIMED_OUT: RunState.TIMED_OUT,
    AttemptState.PREEMPTED: RunState.FAILED,
    AttemptState.LOST: RunState.LOST,
}


def unknown_run(run_id: str) -> NotFound:
    """The one answer for a run that isn't there or isn't the caller's."""
    return NotFound("unknown_run", f"There is no run {run_id!r} of yours.", hint="'atelier runs' lists yours.")


def holder_of(run_id: str, n: int) -> str:
    """Who holds a lease, for an attempt."""
    return f"{run_id}/{n}"


def new_token() -> tuple[str, str]:
    """A run token and its hash."""
    token = secrets.token_hex(32)
    return token, hash_token(token)


def hash_token(token: str) -> str:
    """What the store keeps of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def move(connection: Connection, row: Row[Any], after: RunState, **values: Any) -> None:
    """Move a run on, compare-and-set on its epoch, inside a write transaction.

    Raises
    ------
    Conflict
        ``illegal_move`` when the table of moves doesn't have it, ``stale_epoch`` when the run moved in between.
    """
    before = RunState(row.state)
    if after not in RUN_MOVES[before]:
        raise Conflict("illegal_move", f"Run {row.id} is {before.value} and can't become {after.value}.")
    fields = {"reason": None, "message": WORDS.get(after, ""), "hint": ""} | values
    fields |= {"state": after.value, "epoch": row.epoch + 1, "change": next_change(connection)}
    current = (runs.c.id == row.id) & (runs.c.epoch == row.epoch)
    if connection.execute(update(runs).where(current).values(**fields)).rowcount != 1:
        raise Conflict("stale_epoch", f"Run {row.id} moved in between.", hint="Read it again.")
    moved = {
        "run_id": row.id,
        "attempt": fields.get("attempt", row.attempt),
        "before": before.value,
        "after": after.value,
    }
    connection.execute(insert(transitions).values(**moved, reason=fields["reason"], at=utcnow()))
    stir(connection)


def end(
    connection: Connection, row: Row[Any], after: RunState, reason: Reason | None, message: str | None, **values: Any
) -> None:
    """Move a run to a final state with its reason's sentence and next action."""
    sentence, action = REASON_TEXT[reason] if reason else (WORDS.get(after, ""), "")
    fields = {"reason": reason.value if reason else None, "message": message or sentence, "hint": action} | values
    move(connection, row, after, ended_at=utcnow(), **fields)


def run_row(connection: Connection, run_id: str) -> Row[Any] | None:
    return connection.execute(select(runs).where(runs.c.id == run_id)).first()


def live_attempt(run_id: str, n: int) -> Any:
    return (attempts.c.run_id == run_id) & (attempts.c.n == n) & attempts.c.state.in_(LIVE_ATTEMPTS)


def live_pair(connection: Connection, run_id: str, n: int) -> tuple[Row[Any], Row[Any]]:
    row = run_row(connection, run_id)
    attempt = connection.execute(select(attempts).where(live_attempt(run_id, n))).first()
    if row is None or attempt is None or row.attempt != n:
        raise stale_attempt(run_id, n)
    return row, attempt


def stale_attempt(run_id: str, n: int) -> Conflict:
    """The answer to an agent whose attempt is over."""
    return Conflict(
        "stale_attempt", f"Attempt {n} of run {run_id} is over.", hint="Stop; another attempt may be running."
    )


def end_attempt(connection: Connection, this: Any, outcome: Outcome) -> None:
    values = {
        "state": outcome.state.value,
        "reason": outcome.reason.value if outcome.reason else None,
        "message": outcome.message,
        "exit_code": outcome.exit_code,
        "error": outcome.error.model_dump(mode="json") if outcome.error else None,
        "ended_at": utcnow(),
    }
    connection.execute(update(attempts).where(this).values(**values, **ran(outcome.ran_s)))


def ran(ran_s: float | None) -> dict[str, Any]:
    """What an attempt's row gets when its agent tells how long its work has run: it never becomes less."""
    if ran_s is None:
        return {}
    return {"ran_s": case((attempts.c.ran_s < ran_s, ran_s), else_=attempts.c.ran_s)}


def after_attempt(connection: Connection, row: Row[Any], n: int, outcome: Outcome) -> None:
    """What follows for a run from the end of its attempt: another one after a pause, or its own end."""
    if RunState(row.state) in FINAL_STATES or row.attempt != n:
        return
    spec, tries = RunSpec.model_validate(row.spec), _tries(connection, row.id)
    pause_s = None if row.desired == "cancelled" else pause_before_next(row.id, spec, tries)
    if pause_s is not None:
        _queue_again(connection, row, n, outcome, pause_s=pause_s)
    elif outcome.state is AttemptState.PREEMPTED and row.desired == "cancelled":
        end(connection, row, RunState.CANCELLED, Reason.CANCELLED_BY_USER, None)
    elif outcome.state is AttemptState.PREEMPTED:
        words = f"The run gave its place away {fruitless_in_a_row(tries)} times in a row, each time within a minute."
        hint = "Submit it again once runs may stay on this computer."
        end(connection, row, RunState.FAILED, Reason.PREEMPTED, words, hint=hint)
    else:
        own = {"hint": outcome.hint} if outcome.hint else {}
        end(connection, row, _FINAL_FOR[outcome.state], outcome.reason, outcome.message, **own)


def _tries(connection: Connection, run_id: str) -> list[Try]:
    these = select(attempts).where(attempts.c.run_id == run_id).order_by(attempts.c.n)
    return [
        Try(AttemptState(row.state), Reason(row.reason) if row.reason else None, row.ran_s)
        for row in connection.execute(these)
    ]


def _queue_again(connection: Connection, row: Row[Any], n: int, outcome: Outcome, *, pause_s: float) -> None:
    """Let a run wait for its next attempt, in the turn it had; its queue's limit begins anew after the pause."""
    not_before = utcnow() + timedelta(seconds=pause_s)
    limit_s = row.spec.get("queue_timeout_s")
    preempted = outcome.state is AttemptState.PREEMPTED
    ended = "gave its place away" if preempted else f"ended ({outcome.reason or outcome.state})"
    move(
        connection,
        row,
        RunState.QUEUED,
        not_before=not_before,
        queue_until=not_before + timedelta(seconds=limit_s) if limit_s else None,
        turn_at=row.turn_at or row.queued_at,
        progress=None,
        message=f"Attempt {n} {ended}. Waiting until {not_before:%H:%M:%S} UTC for attempt {n + 1}.",
        hint=f"To try again at once: atelier move {row.id} --first",
    )
