"""What the service keeps and lets go by itself: runs by age and size, and blobs that are nobody's."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from atelier.quantities import utcnow
from atelier.records import Artifact, AttemptState, Reason
from atelier.service.handlers.context import Service
from atelier.service.ownership import find_orphans
from atelier.service.retention import due, share_of_each
from atelier.service.serving import Plan, _Idle, assemble
from atelier.service.store import Capacity, Outcome, Quota, Removable
from atelier.service.store.schema import runs
from atelier.service.sweeping import GRACE, UNFINISHED_AGE_S
from atelier.settings import Retention
from atelier.storage import FilesystemBlobs, RunPaths
from atelier.storage.paths import model_key
from atelier.testing.samples import due_now, finished, queued, running
from tests.service_driver import SETTINGS

KIB = 1024
NOW = utcnow()
ZEROS = "0" * 64


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[[str], Service]]:
    """Makes the parts of a service with a line of settings, none of which goes by itself."""
    services = []

    def make(line: str = "") -> Service:
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        (home / "atelier.yaml").write_text(SETTINGS + line)
        services.append(assemble(Plan(home), home / "service.sock", "token", _Idle(time.monotonic())))
        return services[-1]

    yield make
    for service in services:
        service.store.close()


def ended(service: Service, owner: str = "ann#1", *, days: float = 0.0, size_bytes: int = KIB) -> str:
    """The id of a run that ended so many days ago, whose files have so many bytes."""
    run_id, moment = finished(service.store, owner), utcnow() - timedelta(days=days)
    with service.store.database.write() as connection:
        connection.execute(update(runs).where(runs.c.id == run_id).values(created_at=moment, ended_at=moment))
    service.blobs.write(RunPaths(run_id).whole(1, "log"), b"x" * size_bytes)
    service.store.runs.recorded(run_id)
    return run_id


def ids(service: Service, *owners: str) -> set[str]:
    """Ids of all runs of these owners, whose files are all that there is."""
    pages = (service.store.runs.page(owner, states=(), limit=500, before=None) for owner in owners or ("ann#1",))
    found = {run.id for page in pages for run in page}
    assert set(service.blobs.names("runs")) <= found, "files of a removed run are there"
    return found


# -- retention ----------------------------------------------------------------------------------------------------
def test_nothing_goes_by_itself_unless_the_settings_say_so(made: Callable[[str], Service]) -> None:
    service = made("")
    kept = {ended(service, days=9999) for _ in range(22)}
    assert service.house.expiry.apply() == 0
    assert ids(service) == kept


def test_what_ended_long_ago_goes_and_is_told(made: Callable[[str], Service], caplog: pytest.LogCaptureFixture) -> None:
    service = made("retention: {age: 30d, keep: 1}\n")
    old, other = ended(service, days=31), ended(service, "bob#1", days=40)
    newest = ended(service, "bob#1", days=35)
    pinned, origin, young = (ended(service, days=days) for days in (99, 98, 29))
    service.store.keeping.pin(pinned, pinned=True)
    files = [{"path": "model.onnx", "size_bytes": 1, "sha256": "a" * 64}]
    service.store.models.add(
        owner="ann#1", project="ann#1", name="digits", run_id=origin, digest="1", card={}, files=files
    )
    live_id = running(service.store).run_id
    with caplog.at_level(logging.INFO, "atelier.service"):
        assert service.house.expiry.apply() == 2
    assert ids(service, "ann#1", "bob#1") == {newest, pinned, origin, young, live_id}
    words = [record.getMessage() for record in caplog.records]
    assert any(f"Retention removed {old} of ann#1 (succeeded" in line and "30 d" in line for line in words), words
    assert any(other in line for line in words), words
    assert service.house.expiry.apply() == 0
    service.store.models.remove("ann#1", "digits", 1)
    service.store.keeping.pin(pinned, pinned=False)
    assert service.house.expiry.apply() == 2
    assert ids(service, "ann#1", "bob#1") == {newest, young, live_id}


def test_what_ended_first_goes_until_the_rest_is_small_enough(made: Callable[[str], Service]) -> None:
    service = made("retention: {size: 10Ki, keep: 0}\n")
    oldest, old, young = (ended(service, days=day, size_bytes=4 * KIB) for day in (3, 2, 1))
    assert service.house.expiry.apply() == 1
    assert ids(service) == {old, young}
    service.store.keeping.pin(old, pinned=True)
    largest = ended(service, size_bytes=20 * KIB)
    assert oldest not in ids(service)
    assert service.house.expiry.apply() == 2
    assert ids(service) == {old}, "what is pinned stays"
    assert largest not in ids(service)


def test_a_pass_that_is_cut_off_goes_on(made: Callable[[str], Service], monkeypatch: pytest.MonkeyPatch) -> None:
    service = made("retention: {age: 1d, keep: 0}\n")
    gone = [ended(service, days=9 - day) for day in range(3)]
    release = service.runs.release

    def fail_at_the_second(run: object) -> bool:
        if run.id == gone[1]:  # type: ignore[attr-defined]
            raise OSError("the disk went away")
        return release(run)  # type: ignore[arg-type]

    monkeypatch.setattr(service.runs, "release", fail_at_the_second)
    with pytest.raises(OSError, match="went away"):
        service.house.expiry.apply()
    assert ids(service) == set(gone[1:])
    monkeypatch.undo()
    assert service.house.expiry.apply() == 2
    assert ids(service) == set()


SIZES = st.one_of(st.none(), st.integers(0, 100))
OWNERS = ("ann#1", "bob#1", "carl#1")


@given(
    st.lists(st.tuples(st.floats(0, 50), SIZES, st.sampled_from(OWNERS)), max_size=12),
    st.one_of(st.none(), st.floats(1, 40)),
    SIZES,
    st.tuples(*[st.integers(0, 90)] * 3),
)
def test_no_more_goes_than_the_rule_asks_for(
    made_of: list[tuple[float, int | None, str]], age_d: float | None, size: int | None, newest: tuple[int, ...]
) -> None:
    """Too old ones go; then of who has more than his share the first ones do, each while he has."""
    may_go = [
        Removable(f"r-{place}", owner, NOW - timedelta(days=days), size_bytes)
        for place, (days, size_bytes, owner) in enumerate(sorted(made_of, key=lambda one: -one[0]))
    ]
    rule = Retention(age=None if age_d is None else age_d * 86400, size=size)
    has = Counter(dict(zip(OWNERS, newest, strict=True)))
    for run in may_go:
        has[run.owner] += run.kept_bytes or 0
    gone = [each.run for each in due(may_go, rule, kept_bytes=has, now=NOW)]
    old = [run for run in may_go if rule.age is not None and (NOW - run.ended_at).total_seconds() > rule.age]
    assert gone[: len(old)] == old
    for run in old:
        has[run.owner] -= run.kept_bytes or 0
    share = math.inf if size is None else share_of_each(has.values(), size)
    for run in may_go:
        if run not in old:
            assert (run in gone) == (has[run.owner] > share)
            has[run.owner] -= (run.kept_bytes or 0) * (run in gone)


@given(st.lists(st.integers(0, 50), max_size=6), st.integers(0, 200))
def test_shares_are_as_large_as_they_can_be(taken: list[int], size: int) -> None:
    share = share_of_each(taken, size)
    if sum(taken) <= size:
        assert share == math.inf
    else:
        assert sum(min(each, share) for each in taken) == pytest.approx(size)
        assert share >= size / len(taken)


def test_what_one_keeps_costs_no_other_a_run(made: Callable[[str], Service]) -> None:
    """Bytes of all were counted together: one user's new runs, and his pins, removed those of another."""
    service = made("retention: {size: 100, keep: 0}\n")
    store = service.store
    bobs = [ended(service, "bob#1", days=9 - day) for day in range(3)]
    anns = [ended(service, "ann#1", days=5 - day) for day in range(4)]
    store.keeping.measured({**dict.fromkeys(bobs, 10), **dict.fromkeys(anns, 60)})
    store.keeping.pin(anns[0], pinned=True)
    assert service.house.expiry.apply() == 2
    assert ids(service, "ann#1", "bob#1") == {anns[0], anns[3], *bobs}


# -- orphans ------------------------------------------------------------------------------------------------------
def artifact(path: str, n: int = 1, kind: str = "saved") -> Artifact:
    return Artifact.model_validate(
        {"path": path, "size_bytes": 1, "sha256": ZEROS, "kind": kind, "attempt": n, "created_at": utcnow()}
    )


def passing(paths: RunPaths, n: int) -> tuple[str, str]:
    """What is an attempt's as long as it lives, and as long as its log is not stored in one piece."""
    return f"{paths.incoming(n)}/0123", paths.chunk(n, "log", 0)


def live_run(service: Service) -> tuple[str, int]:
    """A run in its second attempt, both of which have left what they own and what they don't."""
    store, blobs = service.store, service.blobs
    first = running(store, retries=1)
    paths = RunPaths(first.run_id)
    for key in (paths.bundle, paths.record, paths.lock, paths.notebook):
        blobs.write(key, b"x")
    for n in (1, 2):
        for key in (*(paths.artifact(n, name, sha256=ZEROS) for name in ("a/b.txt", "torn")), *passing(paths, n)):
            blobs.write(key, b"x")
        for step, copy in ((1, 1), (1, 2), (2, 1)):
            blobs.write(f"{paths.checkpoint(n, step, copy=copy)}/state.pt", b"x")
    files = [{"path": "state.pt", "size_bytes": 1, "sha256": "0" * 64}]
    store.artifacts.add(first.run_id, artifact("a/b.txt"))
    store.artifacts.add(first.run_id, artifact("train.ipynb", kind="notebook"))
    store.artifacts.add_checkpoint(first.run_id, 1, 1, files, copy=2)
    store.runs.finish(first.run_id, 1, Outcome(AttemptState.LOST, Reason.AGENT_LOST))
    due_now(store, first.run_id)
    second, _ = store.queue.claim(Capacity(), Quota())
    assert second is not None
    store.runs.started(second.run_id, second.n, None)
    return first.run_id, second.n


def orphans(service: Service) -> set[str]:
    return {orphan.key for orphan in find_orphans(service.blobs, service.store.owning)}


def test_what_an_attempt_that_lives_has_stored_is_its_own(made: Callable[[str], Service]) -> None:
    service = made("")
    run_id, n = live_run(service)
    paths = RunPaths(run_id)
    of_the_first = {
        paths.artifact(1, "torn", sha256=ZEROS),
        passing(paths, 1)[0],
        f"{paths.checkpoint(1, 1, copy=1)}/state.pt",
        f"{paths.checkpoint(1, 2, copy=1)}/state.pt",
    }
    assert orphans(service) == of_the_first
    service.store.artifacts.add(run_id, artifact("a/b.txt", n))
    service.store.runs.finish(run_id, n, Outcome(AttemptState.SUCCEEDED))
    of_the_second = {
        paths.artifact(2, "torn", sha256=ZEROS),
        paths.artifact(1, "a/b.txt", sha256=ZEROS),
        passing(paths, 2)[0],
    } | {f"{paths.checkpoint(2, step, copy=copy)}/state.pt" for step, copy in ((1, 1), (1, 2), (2, 1))}
    assert orphans(service) == of_the_first | of_the_second
    service.store.runs.recorded(run_id)
    assert orphans(service) == of_the_first | of_the_second | {paths.chunk(1, "log", 0), paths.chunk(2, "log", 0)}


def test_what_has_no_row_is_nobodys(made: Callable[[str], Service]) -> None:
    service = made("")
    kept = queued(service.store)
    files = [{"path": "model.onnx", "size_bytes": 1, "sha256": "a" * 64}]
    service.store.models.add(owner="ann#1", project="p", name="digits", run_id=None, digest="1", card={}, files=files)
    owned = [RunPaths(kept).bundle, f"{model_key('ann#1', 'digits', 1)}/model.onnx", "uploads/ann/1"]
    nobodys = {
        "runs/r-aaaaaaaaaa": ["runs/r-aaaaaaaaaa/run.json", "runs/r-aaaaaaaaaa/attempts/1/log.txt"],
        "runs/what is this": ["runs/what is this/x"],
    }
    single = {
        f"{model_key('ann#1', 'digits', 1)}/other.onnx",
        f"{model_key('ann#1', 'digits', 2)}/model.onnx",
        f"{model_key('bob#1', 'digits', 1)}/model.onnx",
        *(
            f"runs/{kept}/{rest}"
            for rest in ("odd", "attempts/1/log.txt", "attempts/x/y", "artifacts/1/z", "checkpoints/q")
        ),
    }
    for key in [*owned, *single, *(key for keys in nobodys.values() for key in keys)]:
        service.blobs.write(key, b"four")
    found = {orphan.key: orphan.size_bytes for orphan in find_orphans(service.blobs, service.store.owning)}
    assert found == {**dict.fromkeys(single, 4), "runs/r-aaaaaaaaaa": 8, "runs/what is this": 4}


def test_orphans_go_after_a_week_of_looks(made: Callable[[str], Service], monkeypatch: pytest.MonkeyPatch) -> None:
    service = made("")
    run_id, _ = live_run(service)
    stray = "runs/r-aaaaaaaaaa/run.json"
    service.blobs.write(stray, b"{}")
    before = set(service.blobs.keys("runs"))
    sweeper = service.house.sweeper
    nobodys = orphans(service)
    moment = utcnow()
    monkeypatch.setattr("atelier.service.sweeping.utcnow", lambda: moment)
    assert sweeper.sweep_if_due() == 0
    moment += GRACE / 2
    late = f"{RunPaths(run_id).root}/late"
    service.blobs.write(late, b"x")
    assert sweeper.sweep_if_due() == 0
    assert set(service.blobs.keys("runs")) == before | {late}
    moment += timedelta(minutes=10)
    assert sweeper.sweep_if_due() == 0, "it has just looked"
    moment += GRACE / 2
    assert sweeper.sweep_if_due() == len(nobodys)
    assert orphans(service) == {late}
    assert set(service.blobs.keys("runs")) == {key for key in before | {late} if not key.startswith(tuple(nobodys))}
    moment += GRACE
    assert made("").house.sweeper.sweep_if_due() == 1, "another service has what this one has noted"
    assert orphans(service) == set()


def test_a_database_of_before_gets_the_time_to_be_put_right(
    made: Callable[[str], Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an old backup was put in place, what it does not know is kept until somebody can see that."""
    service = made("")
    run_id = ended(service)
    assert orphans(service) == set()
    moment = utcnow()
    monkeypatch.setattr("atelier.service.sweeping.utcnow", lambda: moment)
    assert service.house.sweeper.sweep() == 0
    with service.store.database.write() as connection:
        kept = dict(connection.execute(runs.select().where(runs.c.id == run_id)).mappings().one())
        connection.execute(runs.delete().where(runs.c.id == run_id))
    moment += timedelta(days=400)
    assert service.house.sweeper.sweep() == 0
    with service.store.database.write() as connection:
        connection.execute(runs.insert().values(**kept))
    moment += GRACE * 2
    with service.store.database.write() as connection:
        connection.execute(runs.delete().where(runs.c.id == run_id))
    assert service.house.sweeper.sweep() == 1, "it was nobody's at both looks"


def test_a_clock_that_went_back_makes_nothing_older(
    made: Callable[[str], Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = made("")
    service.blobs.write("runs/r-aaaaaaaaaa/run.json", b"{}")
    moment = utcnow() + timedelta(days=365)
    monkeypatch.setattr("atelier.service.sweeping.utcnow", lambda: moment)
    assert service.house.sweeper.sweep_if_due() == 0
    moment -= timedelta(days=365)
    assert service.house.sweeper.sweep_if_due() == 0
    assert orphans(service) == {"runs/r-aaaaaaaaaa"}
    moment += GRACE + timedelta(hours=1)
    assert service.house.sweeper.sweep_if_due() == 1


def test_a_look_is_given_up_when_the_service_ends(made: Callable[[str], Service]) -> None:
    service = made("retention: {age: 1d, size: 1, keep: 0}\n")
    kept = {ended(service, days=9) for _ in range(3)}
    service.blobs.write("runs/r-aaaaaaaaaa/run.json", b"{}")

    async def begin_and_end() -> None:
        task = asyncio.create_task(service.house.run())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(begin_and_end())
    assert service.house.sweeper.sweep_if_due() == 0
    assert not service.house.sweeper.notes.exists(), "half a look was noted"
    assert service.house.expiry.apply() == 0
    assert set(service.blobs.names("runs")) == {*kept, "r-aaaaaaaaaa"}


@pytest.mark.parametrize("torn", [b"", b"{", b"[]", b'{"looked_at": 1, "found": {}}', b'{"found": {"x": "y"}}'])
def test_torn_notes_are_made_anew(made: Callable[[str], Service], torn: bytes) -> None:
    service = made("")
    service.blobs.write("runs/r-aaaaaaaaaa/run.json", b"{}")
    service.house.sweeper.notes.write_bytes(torn)
    assert service.house.sweeper.sweep_if_due() == 0
    assert service.house.sweeper.sweep_if_due() == 0
    assert orphans(service) == {"runs/r-aaaaaaaaaa"}


def test_what_killed_writers_left_goes_after_a_day(made: Callable[[str], Service]) -> None:
    service = made("")
    run_id = ended(service)
    assert isinstance(service.blobs, FilesystemBlobs)
    left = service.blobs.root / RunPaths(run_id).root / ".part-0123"
    left.write_bytes(b"half")
    service.house.sweeper.sweep()
    assert left.exists()
    then = time.time() - UNFINISHED_AGE_S - 60
    os.utime(left, (then, then))
    service.house.sweeper.sweep()
    assert not left.exists()
    assert ids(service) == {run_id}
