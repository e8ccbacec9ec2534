"""The part of the store's suite on submitting, reading and removing runs."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from atelier.errors import Conflict, NotFound
from atelier.quantities import utcnow
from atelier.records import AttemptState, ErrorReport, Reason, RunState
from atelier.service.store import Capacity, Outcome, Quota, Store, Wait, hash_token
from atelier.service.store.schema import metadata, runs, submissions
from atelier.service.store.streams import Point
from atelier.testing.samples import beat, claimed, created, finished, new_run, queued, running, starting
from atelier.testing.store_files import artifact


def tables(store: Store) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables."""
    with store.database.read() as connection:
        return {
            table.name: [dict(row) for row in connection.execute(select(table)).mappings()]
            for table in metadata.sorted_tables
        }


class RunsSuite:
    """Submits are idempotent, pages are complete, and whoever polls for changes misses none."""

    # -- submit ---------------------------------------------------------------------------------------------------
    def test_a_submitted_run_is_created(self, store: Store) -> None:
        run, fresh = store.runs.submit(new_run(params={"epochs": 5}, name="first"))
        assert fresh
        assert (run.state, run.epoch, run.attempts, run.desired) == (RunState.CREATED, 0, [], "finished")
        assert run.spec.params == {"epochs": 5}
        assert run.created_at.tzinfo is not None
        assert abs(utcnow() - run.created_at) < timedelta(seconds=30)
        assert store.runs.get(run.id) == run

    def test_values_come_back_as_they_were(self, store: Store) -> None:
        params = {
            "text": "naïve 🙂 \x01 \\",
            "float": 0.1,
            "big": 2**60,
            "none": None,
            "list": [1, {"a": [True]}],
            "": 0,
        }
        run, _ = store.runs.submit(new_run(params=params))
        assert store.runs.get(run.id).spec.params == params

    def test_the_same_key_and_spec_give_the_same_run(self, store: Store) -> None:
        first, fresh = store.runs.submit(new_run(key="k", params={"a": 1, "b": 2}))
        again, fresh_again = store.runs.submit(new_run(key="k", params={"b": 2, "a": 1}))
        assert (fresh, fresh_again) == (True, False)
        assert again.id == first.id
        assert len(store.runs.page("ann#1", states=(), limit=9, before=None)) == 1
        assert store.runs.seen_submission("ann#1", "k") == first.id

    def test_the_same_key_with_another_spec_is_refused(self, store: Store) -> None:
        first = created(store, key="k", params={"a": 1})
        with pytest.raises(Conflict, match=first) as caught:
            store.runs.submit(new_run(key="k", params={"a": 2}))
        assert caught.value.code == "key_reused"
        assert len(store.runs.page("ann#1", states=(), limit=9, before=None)) == 1

    def test_a_key_is_its_owners(self, store: Store) -> None:
        first, second = created(store, "ann#1", key="k"), created(store, "bob#1", key="k", params={"x": 1})
        assert first != second
        assert store.runs.seen_submission("carl#1", "k") is None

    def test_one_key_sent_by_many_at_once_makes_one_run(self, store: Store) -> None:
        together = threading.Barrier(8)

        def submit() -> tuple[str, bool]:
            together.wait(10)
            run, fresh = store.runs.submit(new_run(key="k"))
            return run.id, fresh

        with ThreadPoolExecutor(8) as pool:
            answers = [each.result(timeout=30) for each in [pool.submit(submit) for _ in range(8)]]
        assert len({run_id for run_id, _ in answers}) == 1
        assert sum(fresh for _, fresh in answers) == 1
        with store.database.read() as connection:
            assert len(connection.execute(select(submissions)).all()) == 1

    def test_queueing_twice_is_queueing_once(self, store: Store) -> None:
        run_id = created(store, queue_timeout_s=60)
        store.runs.queue(run_id)
        first = store.runs.get(run_id)
        store.runs.queue(run_id)
        store.runs.queue("r-aaaaaaaaaa")
        assert store.runs.get(run_id) == first
        assert (first.state, first.queue_position) == (RunState.QUEUED, 1)

    # -- read -----------------------------------------------------------------------------------------------------
    def test_another_owners_run_is_no_run(self, store: Store) -> None:
        run_id = created(store, "ann#1")
        assert store.runs.get(run_id, "ann#1").id == run_id
        for owner, wanted in (("bob#1", run_id), ("ann#2", run_id), ("ann#1", "r-aaaaaaaaaa")):
            with pytest.raises(NotFound, match=wanted) as caught:
                store.runs.get(wanted, owner)
            assert caught.value.code == "unknown_run"
        assert store.runs.find("bob#1", run_id[:4]) == []
        assert store.runs.page("bob#1", states=(), limit=9, before=None) == []

    def test_pages_hold_every_run_once_newest_first(self, store: Store) -> None:
        """Also where several were made in the same moment."""
        ids = {created(store) for _ in range(11)}
        moments = [utcnow() - timedelta(seconds=n // 4) for n in range(11)]
        with store.database.write() as connection:
            for run_id, moment in zip(ids, moments, strict=True):
                connection.execute(update(runs).where(runs.c.id == run_id).values(created_at=moment))
        created(store, "bob#1")
        found, before = [], None
        while page := store.runs.page("ann#1", states=(), limit=3, before=before):
            assert len(page) <= 3
            found += page
            before = (page[-1].created_at, page[-1].id)
        assert {run.id for run in found} == ids
        assert len(found) == 11
        assert [run.created_at for run in found] == sorted((run.created_at for run in found), reverse=True)

    def test_a_page_can_be_of_some_states(self, store: Store) -> None:
        done, waiting = finished(store), queued(store)
        made = created(store)

        def ids(*states: RunState) -> list[str]:
            return [run.id for run in store.runs.page("ann#1", states=states, limit=9, before=None)]

        assert ids(RunState.SUCCEEDED) == [done]
        assert ids(RunState.CREATED, RunState.QUEUED) == [made, waiting]
        assert ids(RunState.LOST) == []
        assert store.runs.counts() == {RunState.SUCCEEDED: 1, RunState.QUEUED: 1, RunState.CREATED: 1}

    def test_a_prefix_is_no_pattern(self, store: Store) -> None:
        run_id = created(store)
        assert store.runs.find("ann#1", run_id[:5]) == [run_id]
        assert store.runs.find("ann#1", "r-%") == []
        assert store.runs.find("ann#1", "r_") == []
        for _ in range(5):
            created(store)
        assert len(store.runs.find("ann#1", "r-")) == 3

    def test_the_place_in_the_queue_is_told(self, store: Store) -> None:
        first, second, third = queued(store), queued(store, "bob#1"), queued(store)
        assert [store.runs.get(run_id).queue_position for run_id in (first, second, third)] == [1, 2, 3]
        claimed(store)
        assert [store.runs.get(run_id).queue_position for run_id in (first, second, third)] == [None, 1, 2]

    def test_why_it_waits_is_news_once(self, store: Store) -> None:
        run_id = queued(store)
        nothing, waits = store.queue.claim(Capacity(cpu=0.5), Quota())
        assert (nothing, waits) == (None, [Wait(run_id, Reason.WAITS_FOR_CAPACITY)])
        assert store.queue.tell(waits) == {"ann#1"}
        before = store.runs.newest_change("ann#1")
        assert store.queue.tell(store.queue.claim(Capacity(cpu=0.5), Quota())[1]) == set()
        assert store.runs.newest_change("ann#1") == before
        waiting = store.runs.get(run_id)
        assert waiting.reason is Reason.WAITS_FOR_CAPACITY
        assert waiting.message
        assert waiting.hint
        claimed(store)
        assert store.queue.tell([Wait(run_id, Reason.WAITS_FOR_ACCELERATOR)]) == set()
        assert store.runs.get(run_id).reason is None

    # -- changes --------------------------------------------------------------------------------------------------
    def test_every_change_is_told_in_order(self, store: Store) -> None:
        claim = running(store)
        other = created(store, "bob#1")
        start = store.runs.newest_change("ann#1")
        assert store.runs.changed_since("ann#1", start) == []
        beat(store, claim, usage={"cpu_percent": 9.0})
        second = created(store)
        changes = store.runs.changed_since("ann#1", start)
        assert [number for number, _ in changes] == sorted({number for number, _ in changes})
        assert [run if isinstance(run, str) else run.id for _, run in changes] == [claim.run_id, second]
        assert store.runs.newest_change("ann#1") == changes[-1][0] > start
        assert [run for _, run in store.runs.changed_since("ann#1", start, second)] == [store.runs.get(second)]
        assert store.runs.changed_since("bob#1", 0)[0][1] == store.runs.get(other)
        assert store.runs.newest_change("carl#1") == 0

    def test_a_removed_run_is_told_as_its_id(self, store: Store) -> None:
        run_id = finished(store)
        start = store.runs.newest_change("ann#1")
        store.runs.remove(run_id)
        assert [run for _, run in store.runs.changed_since("ann#1", start)] == [run_id]
        assert [run for _, run in store.runs.changed_since("ann#1", start, run_id)] == [run_id]
        assert store.runs.changed_since("ann#1", start, "r-aaaaaaaaaa") == []
        assert store.runs.changed_since("bob#1", 0) == []
        later = created(store)
        changes = store.runs.changed_since("ann#1", start)
        assert [run if isinstance(run, str) else run.id for _, run in changes] == [run_id, later]
        assert [number for number, _ in changes] == sorted(number for number, _ in changes)
        assert store.runs.newest_change("ann#1") == changes[-1][0]
        done = finished(store, "bob#1")
        store.runs.remove(done)
        assert [(store.runs.newest_change("bob#1"), done)] == store.runs.changed_since("bob#1", 0)

    def test_who_polls_for_changes_misses_none(self, store: Store) -> None:
        """Writers at once; a poller that goes on from the last number it saw ends with every run's last state."""
        ids = [queued(store) for _ in range(6)]
        written, last = threading.Event(), 0
        seen: dict[str, RunState] = {}

        def cancel_some(mine: list[str]) -> None:
            for run_id in mine:
                store.queue.tell([Wait(run_id, Reason.WAITS_FOR_CAPACITY)])
                store.runs.cancel(run_id, grace_s=0.0)

        with ThreadPoolExecutor(3) as pool:
            writers = [pool.submit(cancel_some, ids[n::3]) for n in range(3)]
            while True:
                was_over = written.is_set()
                for number, run in store.runs.changed_since("ann#1", last):
                    assert number > last
                    assert not isinstance(run, str)
                    seen[run.id], last = run.state, number
                if was_over:
                    break
                if all(writer.done() for writer in writers):
                    written.set()
            for writer in writers:
                writer.result()
        assert seen == dict.fromkeys(ids, RunState.CANCELLED)

    # -- removal --------------------------------------------------------------------------------------------------
    def test_a_removed_run_is_gone_everywhere(self, store: Store) -> None:
        run_id = finished(store)
        store.runs.remove(run_id)
        for use in (store.runs.get, store.runs.remove, lambda run_id: store.runs.cancel(run_id, grace_s=0.0)):
            with pytest.raises(NotFound):
                use(run_id)
        assert store.runs.page("ann#1", states=(), limit=9, before=None) == []
        assert store.runs.find("ann#1", run_id[:6]) == []
        assert store.runs.counts() == {}

    def test_a_removed_run_leaves_a_bare_mark(self, store: Store) -> None:
        secret = "s3cret"
        claim = running(store, key="k", params={"token": secret}, name=secret)
        store.artifacts.add(claim.run_id, artifact(secret))
        store.artifacts.add_checkpoint(claim.run_id, claim.n, 1, [{"path": secret}])
        point = Point(secret, 1, 0.5, 1.0)
        store.streams.appended(claim.run_id, claim.n, "metrics", offset=0, length=9, points=[point])
        beat(store, claim, usage={"cpu_percent": 1.0}, warnings=[secret])
        error = ErrorReport(kind="ValueError", message=secret, traceback=secret)
        store.runs.finish(claim.run_id, claim.n, Outcome(AttemptState.FAILED, Reason.CODE_ERROR, secret, 1, error))
        kept = created(store, params={"token": "kept"})
        before = tables(store)
        assert {name for name, rows in before.items() if secret in repr(rows)} >= {"runs", "attempts", "artifacts"}
        store.runs.remove(claim.run_id)
        after = tables(store)
        assert secret not in repr(after)
        assert {name for name, rows in after.items() if claim.run_id in repr(rows)} == {"removed_runs", "submissions"}
        assert store.runs.get(kept).spec.params == {"token": "kept"}
        assert store.runs.by_token(hash_token(claim.token)) is None
        assert store.streams.curves(claim.run_id) == {}

    def test_a_key_whose_run_was_removed_is_told_so(self, store: Store) -> None:
        run_id = finished(store, key="k", params={"a": 1})
        store.runs.remove(run_id)
        with pytest.raises(Conflict, match=run_id) as caught:
            store.runs.submit(new_run(key="k", params={"a": 1}))
        assert (caught.value.code, "fresh key" in caught.value.hint) == ("run_removed", True)
        with pytest.raises(Conflict, match=run_id) as caught:
            store.runs.submit(new_run(key="k", params={"a": 2}))
        assert caught.value.code == "key_reused"
        assert store.runs.page("ann#1", states=(), limit=9, before=None) == []
        assert store.runs.submit(new_run("bob#1", key="k"))[1]

    def test_a_removed_run_is_swept_once(self, store: Store) -> None:
        first, second = finished(store), finished(store)
        assert store.removals.unswept() == []
        store.runs.remove(first)
        store.runs.remove(second)
        assert sorted(store.removals.unswept()) == sorted([first, second])
        for _ in range(2):
            store.removals.swept(first)
            assert store.removals.unswept() == [second]

    def test_a_live_run_is_not_removed(self, store: Store) -> None:
        for make in (created, queued, lambda store: starting(store).run_id, lambda store: running(store).run_id):
            run_id = make(store)
            with pytest.raises(Conflict, match=run_id) as caught:
                store.runs.remove(run_id)
            assert caught.value.code == "run_is_live"
            store.runs.cancel(run_id, grace_s=0.0)
            assert store.runs.get(run_id).id == run_id

    def test_a_queue_limit_goes_with_a_clock_that_is_set(self, store: Store) -> None:
        run_id, _ = queued(store, queue_timeout_s=5), queued(store)
        store.runs.postpone(timedelta(hours=1))
        assert store.runs.overdue(utcnow() + timedelta(seconds=3590)) == []
        assert store.runs.overdue(utcnow() + timedelta(seconds=3606)) == [run_id]
        store.runs.postpone(-timedelta(hours=1))
        assert store.runs.overdue(utcnow() + timedelta(seconds=6)) == [run_id]

    def test_what_the_queue_limit_ended_is_said(self, store: Store) -> None:
        run_id, patient = queued(store, queue_timeout_s=5), queued(store)
        assert store.runs.overdue(utcnow()) == []
        later: datetime = utcnow() + timedelta(seconds=6)
        assert store.runs.overdue(later) == [run_id]
        run = store.runs.expire(run_id)
        assert (run.state, run.reason) == (RunState.TIMED_OUT, Reason.QUEUE_DEADLINE)
        assert run.ended_at is not None
        assert store.runs.expire(run_id) == run
        assert store.runs.overdue(later) == []
        assert store.runs.get(patient).state is RunState.QUEUED
