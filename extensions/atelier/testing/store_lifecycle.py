"""The part of the store's suite on the moves of runs and attempts, and what follows from an attempt's end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Row, select, update

from atelier.errors import Conflict
from atelier.quantities import utcnow
from atelier.reasons import REASON_TEXT, RETRY_CHOICES
from atelier.records import (
    RETRYABLE,
    RUN_MOVES,
    Artifact,
    AttemptState,
    ErrorReport,
    Reason,
    RunState,
)
from atelier.service.store import Capacity, Claim, Outcome, Quota, Store, hash_token, ordering
from atelier.service.store.lifecycle import move, run_row
from atelier.service.store.retries import FIRST_PAUSE_S, JITTER, LONGEST_PAUSE_S, MOST_FRUITLESS
from atelier.service.store.schema import runs, transitions
from atelier.testing.samples import BROKEN, DONE, beat, claimed, created, due_now, in_state, queued, running, starting

SOON_S = 10.0
GAVE_WAY = Outcome(AttemptState.PREEMPTED, Reason.PREEMPTED)
FINAL_OF = {
    AttemptState.SUCCEEDED: RunState.SUCCEEDED,
    AttemptState.FAILED: RunState.FAILED,
    AttemptState.CANCELLED: RunState.CANCELLED,
    AttemptState.TIMED_OUT: RunState.TIMED_OUT,
    AttemptState.LOST: RunState.LOST,
}


class LifecycleSuite:
    """Moves are compare-and-set, ends are told once, retries are new attempts with tokens of their own."""

    # -- moves ----------------------------------------------------------------------------------------------------
    @pytest.mark.parametrize("before", RunState)
    def test_only_the_moves_of_the_table_are_made(self, store: Store, before: RunState) -> None:
        for after in RunState:
            run = in_state(store, before)
            with store.database.write() as connection:
                row = _row(connection, run.id)
                if after in RUN_MOVES[before]:
                    move(connection, row, after)
                else:
                    with pytest.raises(Conflict) as caught:
                        move(connection, row, after)
                    assert caught.value.code == "illegal_move"
            moved = store.runs.get(run.id)
            assert (moved.state, moved.epoch) == ((after, 1) if after in RUN_MOVES[before] else (before, 0))

    def test_a_move_from_an_old_look_changes_nothing(self, store: Store) -> None:
        run_id = created(store)
        with store.database.read() as connection:
            old = _row(connection, run_id)
        store.runs.queue(run_id)
        queued_run = store.runs.get(run_id)
        with pytest.raises(Conflict) as caught, store.database.write() as connection:
            move(connection, old, RunState.QUEUED)
        assert caught.value.code == "stale_epoch"
        assert store.runs.get(run_id) == queued_run
        assert _moves(store, run_id) == [(None, "created"), ("created", "queued")]

    def test_every_move_leaves_a_line(self, store: Store) -> None:
        claim = running(store)
        store.runs.finish(claim.run_id, claim.n, DONE)
        states = ["created", "queued", "starting", "running", "succeeded"]
        assert _moves(store, claim.run_id) == list(zip([None, *states], states, strict=False))
        assert store.runs.get(claim.run_id).epoch == 4

    # -- start and end --------------------------------------------------------------------------------------------
    def test_a_start_is_told_once(self, store: Store) -> None:
        claim = starting(store)
        environment = {"image": "plain", "python": "/x/python", "lock_sha256": "0" * 64, "requirements_sha256": None}
        store.runs.started(claim.run_id, claim.n, environment)
        run = store.runs.get(claim.run_id)
        assert (run.state, run.attempts[0].state) == (RunState.RUNNING, AttemptState.RUNNING)
        assert run.environment is not None
        assert run.environment.image == "plain"
        assert run.started_at is not None
        store.runs.started(claim.run_id, claim.n, None)
        assert store.runs.get(claim.run_id) == run

    @pytest.mark.parametrize("state", FINAL_OF)
    def test_an_end_is_told_once(self, store: Store, state: AttemptState) -> None:
        claim = running(store)
        error = ErrorReport(kind="ValueError", message="no", traceback="Traceback …", cell=3, line=1)
        outcome = Outcome(state, None, "so it was", 3, error)
        run = store.runs.finish(claim.run_id, claim.n, outcome)
        attempt = run.attempts[0]
        assert (run.state, run.message) == (FINAL_OF[state], "so it was")
        assert (attempt.state, attempt.exit_code, attempt.error) == (state, 3, error)
        assert run.ended_at is not None
        assert attempt.ended_at is not None
        for again in (outcome, DONE, BROKEN):
            assert store.runs.finish(claim.run_id, claim.n, again) == run
        assert store.runs.live_attempts() == []

    def test_a_reason_is_said_in_its_sentence_by_run_and_attempt(self, store: Store) -> None:
        claim = running(store)
        run = store.runs.finish(claim.run_id, claim.n, Outcome(AttemptState.LOST, Reason.AGENT_LOST))
        sentence, action = REASON_TEXT[Reason.AGENT_LOST]
        assert (run.message, run.hint, run.attempts[0].message) == (sentence, action, sentence)

    def test_an_attempt_that_never_was_ends_nothing(self, store: Store) -> None:
        claim = running(store)
        assert store.runs.finish(claim.run_id, 7, BROKEN).state is RunState.RUNNING
        assert store.runs.finish(claim.run_id, claim.n, DONE).state is RunState.SUCCEEDED

    def test_a_run_that_never_started_can_end(self, store: Store) -> None:
        claim = starting(store)
        failed = Outcome(AttemptState.FAILED, Reason.START_FAILED)
        run = store.runs.finish(claim.run_id, claim.n, failed)
        assert (run.state, run.reason, run.started_at) == (RunState.FAILED, Reason.START_FAILED, None)
        assert run.message
        assert run.hint

    def test_words_may_hold_any_letter(self, store: Store) -> None:
        """A user's error message reaches the store as it was raised."""
        claim = running(store)
        words = "naïve 🙂 'quoted' \x1b[31m%s \\u0000"
        error = ErrorReport(kind="E", message=words, traceback=words)
        run = store.runs.finish(claim.run_id, claim.n, Outcome(AttemptState.FAILED, None, words, 1, error))
        assert run.message == words
        assert run.attempts[0].error == error

    # -- retries --------------------------------------------------------------------------------------------------
    def test_a_retry_is_a_new_attempt_with_a_new_token(self, store: Store) -> None:
        first = running(store, retries=1)
        run = store.runs.finish(first.run_id, first.n, BROKEN)
        assert (run.state, run.ended_at) == (RunState.QUEUED, None)
        assert store.queue.claim(Capacity(), Quota())[0] is None, "a retry waits a moment"
        due_now(store, run.id)
        second = claimed(store)
        assert (second.run_id, second.n) == (first.run_id, 2)
        assert second.token != first.token
        store.runs.started(second.run_id, second.n, None)
        run = store.runs.finish(second.run_id, second.n, BROKEN)
        assert run.state is RunState.FAILED
        assert [attempt.n for attempt in run.attempts] == [1, 2]

    @pytest.mark.parametrize("reason", sorted(set(Reason)))
    def test_only_what_may_pass_is_tried_again(self, store: Store, reason: Reason) -> None:
        claim = running(store, retries=3)
        run = store.runs.finish(claim.run_id, claim.n, Outcome(AttemptState.FAILED, reason))
        wanted = reason in RETRYABLE and reason is not Reason.PREEMPTED
        assert run.state is (RunState.QUEUED if wanted else RunState.FAILED)

    @pytest.mark.parametrize("reason", sorted(set(Reason)))
    def test_a_user_may_say_after_what_it_is_tried_again(self, store: Store, reason: Reason) -> None:
        for named, wanted in (([reason.value], True), (["any"], reason in RETRY_CHOICES), ([], False)):
            claim = running(store, retries=3, retry_on=named)
            run = store.runs.finish(claim.run_id, claim.n, Outcome(AttemptState.FAILED, reason))
            assert run.state is (RunState.QUEUED if wanted else RunState.FAILED), named
            store.runs.cancel(claim.run_id, grace_s=0.0)

    def test_what_gave_its_place_away_costs_no_retry(self, store: Store) -> None:
        claim = running(store, retries=1)
        for outcome in (GAVE_WAY, BROKEN, GAVE_WAY, BROKEN):
            assert not store.runs.get(claim.run_id).state.is_final
            run = store.runs.finish(claim.run_id, claim.n, outcome)
            if not run.state.is_final:
                due_now(store, run.id)
                claim = claimed(store)
                store.runs.started(claim.run_id, claim.n, None)
        assert [attempt.state.value for attempt in run.attempts] == ["preempted", "failed"] * 2
        assert (run.state, run.reason) == (RunState.FAILED, Reason.CODE_ERROR)

    def test_one_who_cancels_is_not_told_of_a_place_given_away(self, store: Store) -> None:
        claim = running(store)
        store.runs.cancel(claim.run_id, grace_s=SOON_S)
        run = store.runs.finish(claim.run_id, claim.n, GAVE_WAY)
        assert (run.state, run.reason) == (RunState.CANCELLED, Reason.CANCELLED_BY_USER)

    def test_what_gives_its_place_away_for_ever_ends(self, store: Store) -> None:
        """Its pauses grow, and after many attempts that did nothing the run says so instead of going on for ever."""
        claim, pauses_s = running(store), []
        while not (run := store.runs.finish(claim.run_id, claim.n, GAVE_WAY)).state.is_final:
            assert run.not_before is not None
            pauses_s.append((run.not_before - utcnow()).total_seconds())
            due_now(store, run.id)
            claim = claimed(store)
        assert len(run.attempts) == MOST_FRUITLESS
        assert (run.state, run.reason) == (RunState.FAILED, Reason.PREEMPTED)
        assert f"{MOST_FRUITLESS} times in a row" in run.message
        assert "queued again" not in run.hint, "the reason's usual next action is not true of this end"
        assert pauses_s[0] < 2
        assert LONGEST_PAUSE_S - 1 < pauses_s[-1] <= LONGEST_PAUSE_S * (1 + JITTER)

    def test_the_next_attempt_is_told_with_its_time(self, store: Store) -> None:
        claim = running(store, retries=2, queue_timeout_s=100.0)
        run = store.runs.finish(claim.run_id, claim.n, BROKEN)
        assert run.not_before is not None
        assert f"Waiting until {run.not_before:%H:%M:%S} UTC for attempt 2" in run.message
        assert "code_error" in run.message
        assert run.id in run.hint
        assert store.runs.overdue(utcnow() + timedelta(seconds=90)) == [], "the queue's limit went on while it ran"
        assert store.runs.overdue(utcnow() + timedelta(seconds=110)) == [run.id]
        due_now(store, run.id)
        claimed(store)
        assert store.runs.get(run.id).not_before is None

    def test_a_pause_outlives_the_service(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        claim = running(store, retries=2)
        run = store.runs.finish(claim.run_id, claim.n, BROKEN)
        again = Store(store.database.url)
        try:
            assert again.runs.get(run.id) == run
            assert again.queue.claim(Capacity(), Quota())[0] is None
            monkeypatch.setattr(ordering, "utcnow", lambda: utcnow() + timedelta(seconds=2 * FIRST_PAUSE_S))
            assert claimed(again).run_id == run.id
        finally:
            again.close()

    def test_a_pause_ends_when_the_clock_went_back(self, store: Store) -> None:
        """No pause is that long; else an hour that comes twice would cost an hour."""
        claim = running(store, retries=2)
        run = store.runs.finish(claim.run_id, claim.n, BROKEN)
        with store.database.write() as connection:
            later = utcnow() + timedelta(hours=1)
            connection.execute(update(runs).where(runs.c.id == run.id).values(not_before=later))
        assert claimed(store).run_id == run.id

    def test_what_ran_out_of_time_is_not_tried_again(self, store: Store) -> None:
        claim = running(store, retries=3)
        run = store.runs.finish(claim.run_id, claim.n, Outcome(AttemptState.TIMED_OUT, Reason.DEADLINE))
        assert run.state is RunState.TIMED_OUT

    def test_an_old_attempt_can_do_nothing_any_more(self, store: Store) -> None:
        old = running(store, retries=1)
        run_id = old.run_id
        store.runs.finish(run_id, old.n, BROKEN)
        due_now(store, run_id)
        new = claimed(store)
        before = store.runs.get(run_id)
        artifact = Artifact(path="x", size_bytes=1, sha256="0" * 64, attempt=old.n, created_at=utcnow())
        acts: dict[str, Callable[[], object]] = {
            "start": lambda: store.runs.started(run_id, old.n, None),
            "check": lambda: store.runs.check_live(run_id, old.n),
            "heartbeat": lambda: beat(store, old),
            "log": lambda: store.streams.appended(run_id, old.n, "log", offset=0, length=5),
            "artifact": lambda: store.artifacts.add(run_id, artifact),
            "checkpoint": lambda: store.artifacts.add_checkpoint(run_id, old.n, 1, []),
        }
        for name, act in acts.items():
            with pytest.raises(Conflict) as caught:
                act()
            assert caught.value.code == "stale_attempt", name
        assert store.runs.finish(run_id, old.n, DONE) == before
        store.runs.started(run_id, new.n, None)
        assert store.runs.get(run_id).state is RunState.RUNNING

    def test_a_token_leads_to_its_own_attempt_for_ever(self, store: Store) -> None:
        old = running(store, retries=1)
        store.runs.finish(old.run_id, old.n, BROKEN)
        due_now(store, old.run_id)
        new = claimed(store)
        for claim in (old, new):
            row = store.runs.by_token(hash_token(claim.token))
            assert row is not None
            assert (row.run_id, row.n, row.owner) == (claim.run_id, claim.n, "ann#1")
        assert store.runs.by_token(hash_token("another")) is None
        assert store.runs.by_token(new.token) is None, "the store must not keep the token itself"

    # -- cancel ---------------------------------------------------------------------------------------------------
    @pytest.mark.parametrize("make", [created, queued])
    def test_what_waits_is_cancelled_at_once(self, store: Store, make: Callable[[Store], str]) -> None:
        run_id = make(store)
        run = store.runs.cancel(run_id, grace_s=SOON_S)
        assert (run.state, run.reason) == (RunState.CANCELLED, Reason.CANCELLED_BY_USER)
        assert run.ended_at is not None
        assert store.queue.claim(Capacity(), Quota()) == (None, [])

    @pytest.mark.parametrize("make", [starting, running])
    def test_what_lives_is_told_to_stop(self, store: Store, make: Callable[..., Claim]) -> None:
        claim = make(store, retries=5)
        run = store.runs.cancel(claim.run_id, grace_s=SOON_S)
        assert run.desired == "cancelled"
        assert not run.state.is_final
        order = beat(store, claim)
        assert order is not None
        assert order == ("cancel", SOON_S)
        run = store.runs.finish(claim.run_id, claim.n, Outcome(AttemptState.CANCELLED, Reason.CANCELLED_BY_USER))
        assert run.state is RunState.CANCELLED

    def test_a_cancelled_run_is_not_tried_again(self, store: Store) -> None:
        claim = running(store, retries=5)
        store.runs.cancel(claim.run_id, grace_s=SOON_S)
        assert store.runs.finish(claim.run_id, claim.n, BROKEN).state.is_final

    def test_a_run_between_two_attempts_is_cancelled_at_once(self, store: Store) -> None:
        claim = running(store, retries=5)
        store.runs.finish(claim.run_id, claim.n, BROKEN)
        assert store.runs.cancel(claim.run_id, grace_s=0.0).state is RunState.CANCELLED
        due_now(store, claim.run_id)
        assert store.queue.claim(Capacity(), Quota()) == (None, [])

    def test_a_final_run_stays_as_it_is(self, store: Store) -> None:
        for outcome in (DONE, BROKEN):
            claim = running(store)
            run = store.runs.finish(claim.run_id, claim.n, outcome)
            assert store.runs.cancel(run.id, grace_s=0.0) == run

    def test_the_first_order_to_stop_stands_but_for_a_cancel(self, store: Store) -> None:
        claim = running(store)
        assert beat(store, claim) is None
        for why in ("deadline", "stalled"):
            store.runs.stop(claim.run_id, claim.n, why, grace_s=SOON_S)
        order = beat(store, claim)
        assert order is not None
        assert order[0] == "deadline"

    def test_a_look_sees_one_moment(self, store: Store) -> None:
        """A run and its attempts change together; nobody sees the one without the other."""
        run_id, over = queued(store, retries=99), threading.Event()
        fitting: dict[RunState, set[AttemptState | None]] = {
            RunState.QUEUED: {None, AttemptState.FAILED},
            RunState.STARTING: {AttemptState.STARTING},
            RunState.RUNNING: {AttemptState.RUNNING},
        }

        def look_on() -> int:
            looks = 0
            while not over.is_set():
                run = store.runs.get(run_id)
                newest = run.attempts[-1].state if run.attempts else None
                assert newest in fitting[run.state], f"{run.state} with an attempt that is {newest}"
                looks += 1
            return looks

        with ThreadPoolExecutor(2) as pool:
            watchers = [pool.submit(look_on) for _ in range(2)]
            try:
                for n in range(1, 25):
                    due_now(store, run_id)
                    claimed(store)
                    store.runs.started(run_id, n, None)
                    store.runs.finish(run_id, n, BROKEN)
            finally:
                over.set()
            assert min(watcher.result(timeout=10) for watcher in watchers) > 0

    # -- what is counted ------------------------------------------------------------------------------------------
    def test_launches_and_recoveries_are_counted(self, store: Store) -> None:
        claim = starting(store)
        assert [store.runs.launched(claim.run_id, claim.n) for _ in range(3)] == [1, 2, 3]
        assert [store.runs.recovering(claim.run_id, claim.n) for _ in range(2)] == [1, 2]


def _row(connection: Connection, run_id: str) -> Row[Any]:
    row = run_row(connection, run_id)
    assert row is not None
    return row


def _moves(store: Store, run_id: str) -> list[tuple[str | None, str]]:
    query = select(transitions).where(transitions.c.run_id == run_id).order_by(transitions.c.seq)
    with store.database.read() as connection:
        return [(row.before, row.after) for row in connection.execute(query)]
