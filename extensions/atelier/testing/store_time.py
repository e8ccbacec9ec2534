"""The part of the store's suite on times that no clock of the service may change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from sqlalchemy import update

from atelier.quantities import utcnow
from atelier.records import AttemptState, Reason, RunState
from atelier.service.store import Claim, Outcome, Store
from atelier.service.store.retries import FRUITFUL_S
from atelier.service.store.schema import attempts
from atelier.testing.samples import BROKEN, DONE, beat, claimed, due_now, running, starting

GAVE_WAY = Outcome(AttemptState.PREEMPTED, Reason.PREEMPTED)
SOON_S = 10.0


class TimeSuite:
    """How long works ran, and how long those that are stopped may go on, is what their agents count."""

    def test_the_time_of_all_ended_attempts_is_summed_as_they_told_it(self, store: Store) -> None:
        """Whatever the service's clock says: here it shows years more."""
        claim = running(store, retries=4)
        told: list[Callable[[Claim], object]] = [
            lambda claim: beat(store, claim, ran_s=10.0),
            lambda claim: store.runs.work_ended(claim.run_id, claim.n, ran_s=20.0),
            lambda claim: None,
        ]
        for n, tell in enumerate(told, 1):
            with store.database.write() as connection:
                this = (attempts.c.run_id == claim.run_id) & (attempts.c.n == n)
                connection.execute(update(attempts).where(this).values(started_at=utcnow() - timedelta(days=999)))
            tell(claim)
            outcome = replace(BROKEN, ran_s=40.0 if n == len(told) else None)
            store.runs.finish(claim.run_id, n, outcome)
            due_now(store, claim.run_id)
            claim = claimed(store)
            store.runs.started(claim.run_id, claim.n, None)
        beat(store, claim, ran_s=80.0)
        assert store.runs.ran_s(claim.run_id) == 70.0

    def test_the_time_of_an_attempt_never_becomes_less(self, store: Store) -> None:
        claim = running(store, retries=1)
        for ran_s in (3.0, 1.0, None):
            beat(store, claim, ran_s=ran_s)
        store.runs.work_ended(claim.run_id, claim.n, ran_s=2.0)
        store.runs.finish(claim.run_id, claim.n, replace(BROKEN, ran_s=0.5))
        assert store.runs.ran_s(claim.run_id) == 3.0

    def test_what_worked_before_it_gave_its_place_away_is_known_by_no_clock_of_the_service(self, store: Store) -> None:
        pauses_s = []
        for ran_s in (None, 2 * FRUITFUL_S):
            claim = running(store)
            for _ in range(4):
                store.runs.started(claim.run_id, claim.n, None)
                run = store.runs.finish(claim.run_id, claim.n, replace(GAVE_WAY, ran_s=ran_s))
                assert run.not_before is not None
                pauses_s.append((run.not_before - utcnow()).total_seconds())
                due_now(store, run.id)
                claim = claimed(store)
            store.runs.finish(claim.run_id, claim.n, DONE)
        assert min(pauses_s[2:4]) > 2 * max(pauses_s[4:]), pauses_s

    def test_the_time_to_stop_begins_when_it_is_told_and_may_only_become_shorter(self, store: Store) -> None:
        claim = running(store)
        with store.database.write() as connection:
            long_ago = utcnow() - timedelta(days=1)
            connection.execute(update(attempts).values(created_at=long_ago, started_at=long_ago, last_seen_at=long_ago))
        for grace_s, told_s in ((SOON_S, SOON_S), (99.0, SOON_S), (0.0, 0.0), (SOON_S, 0.0)):
            store.runs.cancel(claim.run_id, grace_s=grace_s)
            assert [beat(store, claim) for _ in range(2)] == [("cancel", told_s)] * 2

    def test_how_a_start_goes_is_told_while_it_starts(self, store: Store) -> None:
        claim = starting(store)
        before = store.runs.newest_change("ann#1")
        assert store.runs.tell_start(claim.run_id, claim.n, "No room.", hint="Make some.")
        run = store.runs.get(claim.run_id)
        assert (run.state, run.message, run.hint) == (RunState.STARTING, "No room.", "Make some.")
        assert store.runs.newest_change("ann#1") > before
        assert not store.runs.tell_start(claim.run_id, claim.n, "No room.", hint="Make some.")
        assert not store.runs.tell_start(claim.run_id, claim.n + 1, "Otherwise.", hint="")
        store.runs.started(claim.run_id, claim.n, None)
        assert not store.runs.tell_start(claim.run_id, claim.n, "No room.", hint="Make some.")
        assert (store.runs.get(claim.run_id).message, store.runs.get(claim.run_id).hint) == ("Running.", "")
