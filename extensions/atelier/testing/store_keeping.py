"""The part of the store's suite on pins, and on which ended runs may go."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import update

from atelier.errors import Conflict, NotFound
from atelier.quantities import utcnow
from atelier.records import RunState
from atelier.service.store import Store
from atelier.service.store.schema import runs
from atelier.storage.paths import RunPaths, model_key
from atelier.testing.samples import finished, in_state, queued, running
from atelier.testing.store_files import FILES, artifact, publish


def ended(store: Store, owner: str = "ann#1", *, days: float = 0.0) -> str:
    """The id of a run that was made and has ended so many days ago."""
    run_id, moment = finished(store, owner), utcnow() - timedelta(days=days)
    with store.database.write() as connection:
        connection.execute(update(runs).where(runs.c.id == run_id).values(created_at=moment, ended_at=moment))
    return run_id


class KeepingSuite:
    """A pinned run, a live one, and one that a model came from stay, and so do the newest of each owner."""

    def test_a_pin_is_told_and_taken_away(self, store: Store) -> None:
        run_id = queued(store)
        assert not store.runs.get(run_id).pinned
        before = store.runs.newest_change("ann#1")
        store.keeping.pin(run_id, pinned=True)
        assert store.runs.get(run_id).pinned
        assert [run.pinned for _, run in store.runs.changed_since("ann#1", before) if not isinstance(run, str)] == [
            True
        ]
        noted = store.runs.newest_change("ann#1")
        store.keeping.pin(run_id, pinned=True)
        assert store.runs.newest_change("ann#1") == noted, "it was pinned already"
        store.keeping.pin(run_id, pinned=False)
        assert not store.runs.get(run_id).pinned
        with pytest.raises(NotFound) as caught:
            store.keeping.pin("r-aaaaaaaaaa", pinned=True)
        assert caught.value.code == "unknown_run"

    def test_a_pinned_run_is_not_removed(self, store: Store) -> None:
        run_id = finished(store)
        store.keeping.pin(run_id, pinned=True)
        with pytest.raises(Conflict) as caught:
            store.runs.remove(run_id)
        assert caught.value.code == "run_is_pinned"
        assert f"atelier pin {run_id} --undo" in caught.value.hint
        assert not store.keeping.release(run_id)
        assert store.runs.get(run_id).id == run_id
        store.keeping.pin(run_id, pinned=False)
        store.runs.remove(run_id)
        assert store.removals.unswept() == [run_id]

    def test_what_may_go_has_ended_and_nobody_keeps_it(self, store: Store) -> None:
        old, older = ended(store, days=2), ended(store, "bob#1", days=3)
        pinned, origin = ended(store, days=9), ended(store, days=8)
        store.keeping.pin(pinned, pinned=True)
        publish(store, run_id=origin)
        for state in RunState:
            if not state.is_final:
                in_state(store, state)
        assert [each.id for each in store.keeping.removable(0)] == [older, old]
        assert store.keeping.removable(0)[0].owner == "bob#1"
        store.models.remove("ann#1", "digits", 1)
        assert [each.id for each in store.keeping.removable(0)] == [origin, older, old]

    def test_the_newest_of_each_owner_stay(self, store: Store) -> None:
        mine = [ended(store, days=day) for day in range(5)]
        others = [ended(store, "bob#1", days=day + 0.5) for day in range(3)]
        queued(store)
        assert [each.id for each in store.keeping.removable(2)] == [mine[4], mine[3], others[2], mine[2]]
        assert [each.id for each in store.keeping.removable(4)] == [mine[4]]
        assert store.keeping.removable(5) == []

    def test_what_is_kept_since_is_not_released(self, store: Store) -> None:
        pinned, origin, free = (ended(store, days=day) for day in (3, 2, 1))
        live = running(store).run_id
        assert len(store.keeping.removable(0)) == 3
        store.keeping.pin(pinned, pinned=True)
        publish(store, run_id=origin)
        assert [store.keeping.release(each) for each in (pinned, origin, live, free, free)] == [False] * 3 + [
            True,
            False,
        ]
        assert store.removals.unswept() == [free]
        with pytest.raises(NotFound):
            store.runs.get(free)

    def test_bytes_are_counted_once_for_each_run_that_is_stored(self, store: Store) -> None:
        first, second = ended(store, days=1), ended(store)
        running(store)
        assert store.keeping.unmeasured(9) == [], "their records are not stored yet"
        for run_id in (first, second):
            store.runs.recorded(run_id)
        assert sorted(store.keeping.unmeasured(9)) == sorted([first, second])
        assert len(store.keeping.unmeasured(1)) == 1
        store.keeping.measured({first: 7, second: 2**40, "r-aaaaaaaaaa": 1})
        assert store.keeping.unmeasured(9) == []
        assert [each.kept_bytes for each in store.keeping.removable(0)] == [7, 2**40]
        assert store.keeping.total() == (2, 2**40 + 7)
        assert store.keeping.by_owner() == {"ann#1": 2**40 + 7}
        store.keeping.pin(second, pinned=True)
        assert (store.keeping.total(), store.keeping.by_owner()) == ((2, 2**40 + 7), {"ann#1": 7})

    def test_a_run_owns_what_its_rows_tell_of(self, store: Store) -> None:
        claim, done, bare = running(store, retries=1), finished(store, "bob#1"), queued(store)
        store.runs.recorded(done)
        paths = RunPaths(claim.run_id)
        store.artifacts.add(claim.run_id, artifact("plots/a b.png"))
        files = [{"path": "state.pt", "size_bytes": 1, "sha256": "0" * 64}]
        store.artifacts.add_checkpoint(claim.run_id, 1, 7, files, copy=2)
        owns = store.owning.of_runs([claim.run_id, done, bare, "r-aaaaaaaaaa"])
        assert set(owns) == {claim.run_id, done, bare}
        assert owns[claim.run_id].artifacts == {paths.artifact(1, "plots/a b.png", sha256="0" * 64)}
        assert owns[claim.run_id].checkpoints == {f"{paths.checkpoint(1, 7, copy=2)}/state.pt"}
        assert [(one.attempts, one.live, one.is_stored) for one in (owns[claim.run_id], owns[done], owns[bare])] == [
            ({1}, 1, False),
            ({1}, None, True),
            (set(), None, False),
        ]
        publish(store)
        assert store.owning.of_models() == {f"{model_key('ann#1', 'digits', 1)}/{file['path']}" for file in FILES}
