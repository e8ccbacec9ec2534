"""The part of the store's suite on artifacts, checkpoints and model versions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from atelier.errors import NotFound, RefusedInput
from atelier.quantities import utcnow
from atelier.records import Artifact, AttemptState, Reason
from atelier.service.store import Outcome, Store
from atelier.testing.samples import DONE, claimed, due_now, finished, running


def artifact(path: str, size_bytes: int = 1, *, attempt: int = 1) -> Artifact:
    """An artifact of that path."""
    return Artifact(path=path, size_bytes=size_bytes, sha256="0" * 64, attempt=attempt, created_at=utcnow())


FILES = [
    {"path": "model.onnx", "size_bytes": 7, "sha256": "a" * 64},
    {"path": "model.json", "size_bytes": 3, "sha256": "b" * 64},
]


def publish(
    store: Store, owner: str = "ann#1", *, name: str = "digits", digest: str = "1", run_id: str | None = None
) -> tuple[int, bool]:
    """Add and publish a version of a model; its number, and whether it was new."""
    version, is_published = add(store, owner, name=name, digest=digest, run_id=run_id)
    store.models.publish(owner, name, version)
    return version, not is_published


def add(
    store: Store, owner: str = "ann#1", *, name: str = "digits", digest: str = "1", run_id: str | None = None
) -> tuple[int, bool]:
    """Add a version of a model; its number, and whether it is published."""
    return store.models.add(
        owner=owner, project=owner, name=name, run_id=run_id, digest=digest, card={"digest": digest}, files=FILES
    )


class FilesSuite:
    """Artifacts and checkpoints belong to live attempts; versions of models never change, aliases move."""

    def test_artifacts_are_listed_by_path(self, store: Store) -> None:
        claim = running(store)
        for path, size in (("b/x.txt", 5), ("a naïve 🙂.txt", 2), ("b", 3)):
            store.artifacts.add(claim.run_id, artifact(path, size))
        assert [each.path for each in store.artifacts.of_run(claim.run_id)] == sorted(
            ["b/x.txt", "a naïve 🙂.txt", "b"]
        )
        assert store.artifacts.total_bytes(claim.run_id) == 10
        assert store.runs.get(claim.run_id).artifacts == 3
        assert store.artifacts.get(claim.run_id, "b").size_bytes == 3
        with pytest.raises(NotFound) as caught:
            store.artifacts.get(claim.run_id, "b/")
        assert caught.value.code == "unknown_artifact"

    def test_an_artifact_of_the_same_path_replaces(self, store: Store) -> None:
        claim = running(store)
        for size in (5, 2):
            store.artifacts.add(claim.run_id, artifact("x", size))
        assert [each.size_bytes for each in store.artifacts.of_run(claim.run_id)] == [2]
        assert store.artifacts.total_bytes(claim.run_id) == 2
        store.artifacts.add(claim.run_id, artifact("y", 9))
        assert store.artifacts.total_bytes(claim.run_id, besides="x") == 9

    def test_a_file_that_the_code_saved_stays_so_when_it_is_found_again(self, store: Store) -> None:
        claim = running(store)
        saved = artifact("x", 5).model_copy(update={"kind": "saved"})
        store.artifacts.add(claim.run_id, saved)
        store.artifacts.add(claim.run_id, artifact("x", 5))
        assert store.artifacts.get(claim.run_id, "x") == saved
        store.artifacts.add(claim.run_id, artifact("x", 6).model_copy(update={"sha256": "1" * 64}))
        assert store.artifacts.get(claim.run_id, "x").kind == "written"

    def test_a_later_attempts_file_takes_the_place_of_what_bars_it(self, store: Store) -> None:
        """A file where there is now a folder, a folder where there is now a file; and nothing that looks like them."""
        claim = running(store, retries=1)
        kept = ["Out/a", "other", "outer", "plots/a_c", "plots%/x"]
        for path in (*kept, "out", "plots/a%c/1", "plots/a%c/2/3", "same"):
            assert store.artifacts.add(claim.run_id, artifact(path)) == []
        store.runs.finish(claim.run_id, claim.n, Outcome(AttemptState.LOST, Reason.AGENT_LOST))
        due_now(store, claim.run_id)
        second = claimed(store)
        store.runs.started(second.run_id, second.n, None)

        def add(path: str, sha256: str = "0" * 64) -> list[tuple[int, str]]:
            store.artifacts.check_place(claim.run_id, 2, path)
            new = artifact(path, attempt=2).model_copy(update={"sha256": sha256})
            gone = store.artifacts.add(claim.run_id, new)
            return sorted((old.attempt, old.path) for old in gone)

        assert add("out/model.pt") == [(1, "out")]
        assert add("plots/a%c") == [(1, "plots/a%c/1"), (1, "plots/a%c/2/3")]
        assert add("same") == [(1, "same")]
        assert add("same") == [], "the bytes of what was noted again are its own"
        assert add("same", "1" * 64) == [(2, "same")], "other bytes lie elsewhere"
        assert add("same") == [(2, "same")]
        assert store.artifacts.has_content(claim.run_id, 2, "0" * 64)
        assert not store.artifacts.has_content(claim.run_id, 2, "1" * 64)
        assert [store.artifacts.has_any(claim.run_id, n) for n in (1, 2, 3)] == [True, True, False]
        found = [(each.attempt, each.path) for each in store.artifacts.of_run(claim.run_id)]
        assert sorted(found) == sorted(
            [(1, path) for path in kept] + [(2, "out/model.pt"), (2, "plots/a%c"), (2, "same")]
        )

    def test_one_attempt_has_no_file_where_it_has_a_folder(self, store: Store) -> None:
        claim = running(store)
        for path in ("out", "plots/loss/1.png"):
            store.artifacts.add(claim.run_id, artifact(path))
        for path in ("out/model.pt", "out/a/b", "plots", "plots/loss"):
            with pytest.raises(RefusedInput, match="can't both be kept") as caught:
                store.artifacts.check_place(claim.run_id, 1, path)
            assert caught.value.code == "path_taken"
        for path in ("out", "outer", "plots/loss/2.png", "plots/loss2", "Out/x"):
            store.artifacts.check_place(claim.run_id, 1, path)

    def test_a_new_artifact_is_a_change(self, store: Store) -> None:
        claim = running(store)
        before = store.runs.newest_change("ann#1")
        store.artifacts.add(claim.run_id, artifact("x"))
        assert store.runs.newest_change("ann#1") > before

    def test_removing_a_run_forgets_its_artifacts(self, store: Store) -> None:
        claim = running(store)
        store.artifacts.add(claim.run_id, artifact("x"))
        store.runs.finish(claim.run_id, claim.n, DONE)
        store.runs.remove(claim.run_id)
        assert store.artifacts.of_run(claim.run_id) == []
        assert store.artifacts.total_bytes(claim.run_id) == 0

    def test_checkpoints_come_newest_step_first(self, store: Store) -> None:
        claim = running(store)
        files = [{"path": "weights.bin", "size_bytes": 4, "sha256": "c" * 64}]
        for step in (2, 10, 9):
            store.artifacts.add_checkpoint(claim.run_id, claim.n, step, files)
        store.artifacts.add_checkpoint(claim.run_id, claim.n, 10, [])
        found = [(one.step, one.files) for one in store.artifacts.checkpoints(claim.run_id)]
        assert found == [(10, []), (9, files), (2, files)]
        assert store.artifacts.checkpoints("r-aaaaaaaaaa") == []

    def test_a_record_has_the_step_of_its_newest_checkpoint(self, store: Store) -> None:
        other, claim = running(store), running(store)
        run = store.runs.get(claim.run_id)
        assert run.checkpoint_step is None
        for step in (3, 20):
            store.artifacts.add_checkpoint(claim.run_id, claim.n, step, [])
        steps = {one.id: one.checkpoint_step for one in store.runs.page(run.owner, states=[], limit=10, before=None)}
        assert (steps[claim.run_id], steps[other.run_id]) == (20, None)

    def test_a_checkpoint_of_the_same_step_is_another_copy(self, store: Store) -> None:
        claim = running(store)
        assert store.artifacts.add_checkpoint(claim.run_id, claim.n, 1, FILES) == []
        (old,) = store.artifacts.add_checkpoint(claim.run_id, claim.n, 1, [], copy=2)
        assert (old.step, old.attempt, old.copy, old.files) == (1, claim.n, 1, FILES)
        assert store.artifacts.add_checkpoint(claim.run_id, claim.n, 1, [], copy=2) == [], "a repeat takes nothing away"
        (kept,) = store.artifacts.checkpoints(claim.run_id)
        assert (kept.copy, kept.files) == (2, [])

    def test_the_three_checkpoints_that_were_published_last_are_kept(self, store: Store) -> None:
        claim = running(store, retries=1)

        def add(n: int, step: int) -> list[tuple[int, int]]:
            gone = store.artifacts.add_checkpoint(claim.run_id, n, step, [])
            return [(one.attempt, one.step) for one in gone]

        assert [add(1, step) for step in (10, 20, 30, 40, 50)] == [[], [], [], [(1, 10)], [(1, 20)]]
        assert add(1, 50) == [], "the files of what was published again are its own"
        store.runs.finish(claim.run_id, claim.n, Outcome(AttemptState.LOST, Reason.AGENT_LOST))
        due_now(store, claim.run_id)
        second = claimed(store)
        store.runs.started(second.run_id, second.n, None)
        assert add(2, 50) == [(1, 50)]
        assert add(2, 5) == [(1, 30)]
        kept = [(one.attempt, one.step) for one in store.artifacts.checkpoints(claim.run_id)]
        assert kept == [(2, 50), (1, 40), (2, 5)]

    def test_a_bundle_is_used_as_long_as_a_run_of_it_is_there(self, store: Store) -> None:
        run_id = finished(store)
        assert store.removals.uses_bundle("ann#1", "0" * 64)
        assert not store.removals.uses_bundle("bob#1", "0" * 64)
        assert not store.removals.uses_bundle("ann#1", "1" * 64)
        store.runs.remove(run_id)
        assert not store.removals.uses_bundle("ann#1", "0" * 64)

    # -- models ---------------------------------------------------------------------------------------------------
    def test_versions_count_up_by_name_and_owner(self, store: Store) -> None:
        assert [publish(store, digest=digest)[0] for digest in "123"] == [1, 2, 3]
        assert publish(store, name="words") == (1, True)
        assert publish(store, "bob#1") == (1, True)
        assert [one.version for one in store.models.versions("ann#1", "digits")] == [3, 2, 1]
        assert [(one.name, one.version) for one in store.models.names("ann#1")] == [("digits", 3), ("words", 1)]
        newest = store.models.versions("ann#1", "digits")[0]
        assert (newest.card, newest.size_bytes, newest.owner) == ({"digest": "3"}, 10, "ann#1")
        assert [file.path for file in newest.files] == ["model.onnx", "model.json"]

    def test_the_same_content_of_the_same_run_is_the_same_version(self, store: Store) -> None:
        run_id = running(store).run_id
        assert publish(store, run_id=run_id) == (1, True)
        assert publish(store, run_id=run_id) == (1, False)
        assert publish(store) == (2, True)
        assert publish(store) == (2, False)

    def test_a_version_is_seen_once_it_is_published(self, store: Store) -> None:
        run_id = running(store).run_id
        publish(store, run_id=run_id)
        for _ in range(2):
            assert add(store, digest="2", run_id=run_id) == (2, False)
        assert add(store, name="words", run_id=run_id) == (1, False)
        assert [one.version for one in store.models.versions("ann#1", "digits")] == [1]
        assert [(one.name, one.version) for one in store.models.names("ann#1")] == [("digits", 1)]
        assert [(one.name, one.version) for one in store.models.of_run("ann#1", run_id)] == [("digits", 1)]
        with pytest.raises(NotFound):
            store.models.versions("ann#1", "words")
        begun = [("ann#1", "digits", 2), ("ann#1", "words", 1)]
        assert sorted(store.models.unfinished(utcnow() + timedelta(seconds=9))) == begun
        assert store.models.unfinished(utcnow() - timedelta(seconds=9)) == []
        store.models.publish("ann#1", "digits", 2)
        store.models.publish("ann#1", "digits", 9)
        assert add(store, digest="2", run_id=run_id) == (2, True)
        assert [one.version for one in store.models.versions("ann#1", "digits")] == [2, 1]
        assert store.models.total_bytes(run_id, besides="") == 30
        assert store.models.total_bytes(run_id, besides="1") == 10

    def test_versions_made_at_once_are_all_kept(self, store: Store) -> None:
        with ThreadPoolExecutor(6) as pool:
            made = [pool.submit(publish, store, digest=str(n)) for n in range(6)]
            assert sorted(each.result(timeout=30)[0] for each in made) == [1, 2, 3, 4, 5, 6]

    def test_another_owners_model_is_no_model(self, store: Store) -> None:
        publish(store)
        for owner, name in (("bob#1", "digits"), ("ann#1", "nothing")):
            with pytest.raises(NotFound) as caught:
                store.models.versions(owner, name)
            assert caught.value.code == "unknown_model"
        assert store.models.names("bob#1") == []

    def test_an_alias_points_to_one_version(self, store: Store) -> None:
        for digest in "12":
            publish(store, digest=digest)
        publish(store, "bob#1")

        def aliases() -> dict[int, list[str]]:
            return {one.version: one.aliases for one in store.models.versions("ann#1", "digits")}

        for alias, version in (("production", 1), ("staging", 1), ("production", 2), ("production", 2)):
            store.models.set_alias("ann#1", "digits", alias, version)
        assert aliases() == {1: ["staging"], 2: ["production"]}
        assert store.models.versions("bob#1", "digits")[0].aliases == []
        assert store.models.names("ann#1")[0].aliases == ["production"]
        for _ in range(2):
            store.models.set_alias("ann#1", "digits", "production", None)
        assert aliases() == {1: ["staging"], 2: []}

    def test_a_removed_version_takes_its_aliases_with_it(self, store: Store) -> None:
        for digest in "12":
            publish(store, digest=digest)
        store.models.set_alias("ann#1", "digits", "production", 2)
        store.models.remove("ann#1", "digits", 2)
        assert [(one.version, one.aliases) for one in store.models.versions("ann#1", "digits")] == [(1, [])]
        assert publish(store, digest="3")[0] == 3, "a number that was given is given again"
