"""A restore puts a backup in the place of what is there, whole, and never beside what another timeline has left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from atelier.errors import Conflict
from atelier.local.attempts import marks_of
from atelier.records import AttemptState, Reason
from atelier.service.attempts import AgentCaller, FinishReport
from atelier.service.backends import Key
from atelier.service.backends.local import is_locked
from atelier.service.backups import back_up, restore
from atelier.service.handlers.context import Service
from atelier.service.store import Outcome
from atelier.storage import FilesystemBlobs, RunPaths
from atelier.testing.invariants import broken
from atelier.testing.samples import claimed, due_now
from tests.cli_driver import wait_for
from tests.contract.writing_runs import (
    begin,
    checkpoint,
    dies_at_copy,
    ended,
    keep,
    key_of,
    publish,
    restored,
    service_of,
)
from tests.service_driver import SETTINGS

LOST = Outcome(AttemptState.LOST, Reason.AGENT_LOST)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """One whose blobs lie elsewhere, where a restore can't rename them away."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "atelier.yaml").write_text(SETTINGS + f"blobs: {(tmp_path / 'store').as_uri()}\n")
    return folder


@pytest.fixture
def blobs(tmp_path: Path) -> FilesystemBlobs:
    return FilesystemBlobs(tmp_path / "store")


def next_attempt(service: Service, run_id: str) -> AgentCaller:
    """The agent of a run's second attempt, its first one having been lost."""
    due_now(service.store, run_id)
    claim = claimed(service.store)
    assert (claim.run_id, claim.n) == (run_id, 2)
    service.attempts.clear(claim.run_id, claim.n)
    agent = service.attempts.caller(f"run {claim.token}")
    service.attempts.started(agent, None, "")
    return agent


def two_timelines(service: Service, home: Path, folder: Path) -> AgentCaller:
    """A backup of a run's first attempt, and all that its second one and a later run have left after it."""
    first = begin(service, retries=3)
    keep(service, first, "kept.bin", b"kept")
    checkpoint(service, first, 1, b"first")
    service.attempts.append(first, "log", 0, b"of the first\n")
    back_up(home, folder)
    service.attempts.end(Key(first.run_id, 1), LOST)
    later = next_attempt(service, first.run_id)
    service.attempts.append(later, "log", 0, b"of the other timeline, and longer\n")
    keep(service, later, "later.bin", b"later")
    checkpoint(service, later, 1, b"later")
    publish(service, later, b"later model")
    service.attempts.finish(later, FinishReport(state=AttemptState.SUCCEEDED))
    ended(service)
    service.store.close()
    return later


def check(service: Service, blobs: FilesystemBlobs, run_id: str) -> None:
    """A second attempt has what it tells itself, and nothing else."""
    assert service.store.models.names("ann#1") == []
    assert [*blobs.keys("models")] == []
    assert blobs.names("runs") == [run_id]
    again = next_attempt(service, run_id)
    assert service.streams.read(run_id, 2, "log", 0, 100) == b""
    service.attempts.append(again, "log", 0, b"again\n")
    checkpoint(service, again, 1, b"again")
    service.attempts.finish(again, FinishReport(state=AttemptState.SUCCEEDED))
    assert blobs.read(RunPaths(run_id).whole(1, "log")) == b"of the first\n"
    assert blobs.read(RunPaths(run_id).whole(2, "log")) == b"again\n"
    assert [file.path for file in service.store.artifacts.of_run(run_id)] == ["kept.bin"]
    assert [each.read_bytes() for each in (blobs.root / RunPaths(run_id).checkpoints).rglob("*.pt")] == [b"again"]


# -- another timeline ---------------------------------------------------------------------------------------------
def test_what_is_newer_than_the_backup_is_set_aside(
    service: Service, blobs: FilesystemBlobs, home: Path, tmp_path: Path
) -> None:
    later = two_timelines(service, home, tmp_path / "backup")
    theirs = {key: blobs.read(key) for kind in ("runs", "models") for key in blobs.keys(kind)}
    _, aside = restore(tmp_path / "backup", home, replace=True)
    assert aside is not None
    assert {key.partition("/")[2]: blobs.read(key) for key in blobs.keys(aside.name)} == theirs
    assert str(blobs.root / aside.name) in (aside / "blobs.txt").read_text()
    again = service_of(home)
    try:
        check(again, blobs, later.run_id)
    finally:
        again.store.close()
    assert broken(home) == []


def test_a_second_attempt_meets_nothing_that_its_store_does_not_know(
    service: Service, blobs: FilesystemBlobs, home: Path, tmp_path: Path
) -> None:
    """Where only the database was put back, by hand: the blobs are those of the other timeline."""
    later = two_timelines(service, home, tmp_path / "backup")
    other = tmp_path / "other"
    shutil.copytree(blobs.root, tmp_path / "newer")
    restore(tmp_path / "backup", home, replace=True)
    shutil.copytree(tmp_path / "newer/runs", blobs.root / "runs", dirs_exist_ok=True)
    again = service_of(home)
    try:
        due_now(again.store, later.run_id)
        claim = claimed(again.store)
        for _ in range(2):  # the service dies after it, and the next one does it again
            again.attempts.clear(claim.run_id, claim.n)
            found = [key for key in blobs.keys(RunPaths(claim.run_id).root) if "/2" in key]
            assert found == []
        agent = again.attempts.caller(f"run {claim.token}")
        keep(again, agent, "mine.bin", b"mine")
        again.attempts.clear(claim.run_id, claim.n)
        assert blobs.read(key_of(agent, "mine.bin", b"mine")) == b"mine", "what it has told itself was removed"
        assert not other.exists()
    finally:
        again.store.close()


@pytest.mark.parametrize("cut", [1, 4, 9, 13])
def test_a_restore_that_is_cut_off_among_the_blobs_mixes_nothing(
    service: Service, blobs: FilesystemBlobs, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, cut: int
) -> None:
    later = two_timelines(service, home, tmp_path / "backup")
    theirs = {blobs.read(key) for kind in ("runs", "models") for key in blobs.keys(kind)}
    with dies_at_copy(cut, monkeypatch):
        restore(tmp_path / "backup", home, replace=True)
    with pytest.raises(Conflict) as caught:
        service_of(home)
    assert caught.value.code == "restore_unfinished"
    restore(tmp_path / "backup", home, replace=True)
    again = service_of(home)
    try:
        check(again, blobs, later.run_id)
    finally:
        again.store.close()
    left = {path.read_bytes() for path in blobs.root.rglob("*") if path.is_file()}
    assert theirs <= left, "something was lost"
    assert not (home / ".restore-unfinished").exists()
    assert blobs.names(".restoring") == []


def test_blobs_in_another_place_are_backed_up_from_there_and_go_back(
    service: Service, home: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    agent = begin(service)
    keep(service, agent, "a.bin", b"a")
    service.store.close()
    back_up(home, tmp_path / "backup")
    with pytest.raises(Conflict, match="already"):
        restore(tmp_path / "backup", tmp_path / "other", replace=False)
    shutil.rmtree(store)
    with restored(tmp_path / "backup", tmp_path / "other") as other:
        assert (store / key_of(agent, "a.bin", b"a")).read_bytes() == b"a"
        assert other.store.runs.get(agent.run_id).state == "lost"
    assert broken(tmp_path / "other") == []


# -- a restore that is cut off -------------------------------------------------------------------------------------
@pytest.mark.parametrize("cut", range(1, 5))
def test_a_restore_that_is_cut_off_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int) -> None:
    """Until all is in its place no service begins over what is half there, and no backup of it is made."""
    home = tmp_path / "plain"
    service = service_of(home)
    run_id = ended(service)
    (home / "secrets").mkdir(exist_ok=True)
    (home / "secrets/password").write_text("hush\n")
    back_up(home, tmp_path / "backup")
    service.store.close()
    other, moves = tmp_path / "other", 0
    rename = os.replace

    def cut_off(source: Path, target: Path) -> None:
        nonlocal moves
        moves += ".restoring" in str(source)
        if moves == cut:
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("atelier.service.backups.restoring.os.replace", cut_off)
        with pytest.raises(KeyboardInterrupt):
            restore(tmp_path / "backup", other, replace=False)
    for use in (lambda: service_of(other), lambda: back_up(other, tmp_path / "of half")):
        with pytest.raises(Conflict) as caught:
            use()
        assert caught.value.code == "restore_unfinished"
    restore(tmp_path / "backup", other, replace=True)
    again = service_of(other)
    assert again.store.runs.get(run_id).state == "succeeded"
    again.store.close()
    assert (other / "secrets/password").read_text() == "hush\n"


# -- a home with runs at work -------------------------------------------------------------------------------------
@contextmanager
def agent_at_work(folder: Path, key: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process with the marks and the lock of an attempt's agent."""
    folder.mkdir(parents=True)
    (folder / "orders.json").write_text("{}")
    code = "import fcntl, time; lock = open('lock', 'w'); fcntl.flock(lock, fcntl.LOCK_EX); time.sleep(120)"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=folder, env=os.environ | marks_of(key, folder))
    try:
        wait_for(lambda: is_locked(folder / "lock"), "the agent to have its lock")
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_home_whose_runs_are_at_work_is_left_alone_unless_they_are_ended(
    service: Service, home: Path, tmp_path: Path
) -> None:
    agent = begin(service)
    service.attempts.append(agent, "log", 0, b"first\n")
    back_up(home, tmp_path / "backup")
    keep(service, agent, "later.bin", b"let go by the agent, and not in the backup")
    service.store.close()
    folder = home / "run/attempts" / agent.run_id / "1"
    with agent_at_work(folder, f"{agent.run_id}/1") as process:
        before = (home / "db/atelier.sqlite").read_bytes()
        with pytest.raises(Conflict, match=agent.run_id) as caught:
            restore(tmp_path / "backup", home, replace=True)
        assert caught.value.code == "runs_at_work"
        assert (process.poll(), (home / "db/atelier.sqlite").read_bytes()) == (None, before)
        assert not (home / ".restoring").exists()
        _, aside = restore(tmp_path / "backup", home, replace=True, end_runs=True)
        assert process.wait(timeout=10) == -signal.SIGKILL
    assert aside is not None
    assert (aside / folder.relative_to(home) / "orders.json").exists()
    assert not folder.exists()
    again = service_of(home)
    assert again.store.runs.get(agent.run_id).state == "lost"
    again.store.close()


def test_what_a_dead_agent_has_left_is_not_brought_into_an_older_record(
    service: Service, home: Path, tmp_path: Path
) -> None:
    """Its result would say that all is there; what it had told since the backup is not."""
    agent = begin(service)
    back_up(home, tmp_path / "backup")
    service.store.close()
    folder = home / "run/attempts" / agent.run_id / "1"
    folder.mkdir(parents=True)
    for name in ("orders.json", "lock", "result.json"):
        (folder / name).write_text("{}")
    _, aside = restore(tmp_path / "backup", home, replace=True)
    assert aside is not None
    assert (aside / folder.relative_to(home) / "result.json").exists()
    again = service_of(home)
    assert again.store.runs.get(agent.run_id).state == "lost"
    again.store.close()
