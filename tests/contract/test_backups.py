"""A backup that is made while runs are written is whole and verifies; restored, it has everything that it tells of."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from atelier.errors import AtelierError, Conflict, InternalError, NotFound, RefusedInput
from atelier.records import AttemptState, Reason
from atelier.service.attempts import FinishReport
from atelier.service.backups import back_up, restore, verify
from atelier.service.backups.objects import MANIFEST, Manifest, Objects
from atelier.service.handlers.context import Service
from atelier.service.store import Store
from atelier.storage import RunPaths
from atelier.testing.invariants import broken
from tests.cli_driver import wait_for
from tests.contract.writing_runs import begin, checkpoint, ended, keep, key_of, live, restored
from tests.service_driver import SETTINGS
from tests.small_disk import small_disk

WRITERS = 8
BACKUPS = 4


# -- while runs are written ---------------------------------------------------------------------------------------
def test_each_of_many_backups_of_runs_at_work_is_whole(service: Service, home: Path, tmp_path: Path) -> None:
    folder, ending, lived = tmp_path / "backup", threading.Event(), 0
    with ThreadPoolExecutor(WRITERS) as pool:
        writers = [pool.submit(live, service, seed, ending) for seed in range(WRITERS)]
        try:
            wait_for(lambda: len(service.store.runs.live_attempts()) > WRITERS / 2, "runs at work")
            for n in range(BACKUPS):
                time.sleep(0.3)
                assert back_up(home, folder).missing == []
                assert verify(folder)[1] == []
                with restored(folder, tmp_path / f"restored-{n}") as other:
                    runs = other.store.runs.page("ann#1", states=(), limit=500, before=None)
                    lived += sum(run.reason is Reason.AGENT_LOST for run in runs)
                assert broken(tmp_path / f"restored-{n}") == []
        finally:
            ending.set()
            for writer in writers:
                writer.result(timeout=60)
    assert lived > BACKUPS, "no run was at work when its database was copied"
    back_up(home, folder)
    with restored(folder, tmp_path / "last") as other:
        mine, theirs = ({run.id: run for run in one.store.runs.page("ann#1", states=(), limit=500, before=None)}
                        for one in (service, other))  # fmt: skip
        assert theirs == mine
        for run_id in mine:
            key = RunPaths(run_id).whole(1, "log")
            assert other.blobs.read(key) == service.blobs.read(key)


def test_a_run_that_lived_has_its_acknowledged_bytes(service: Service, home: Path, tmp_path: Path) -> None:
    agent = begin(service)
    told = b"".join(f"line {n}\n".encode() for n in range(200))
    at = 0
    for line in told.splitlines(keepends=True):
        at = service.attempts.append(agent, "log", at, line)
    service.blobs.write(RunPaths(agent.run_id).chunk(1, "log", at), b"not acknowledged")
    back_up(home, tmp_path / "backup")
    with restored(tmp_path / "backup", tmp_path / "other") as other:
        run = other.store.runs.get(agent.run_id)
        assert (run.state, run.reason) == ("lost", Reason.AGENT_LOST)
        assert "from which its record was restored" in run.message
        assert other.streams.read(agent.run_id, 1, "log", 0, 1 << 20) == told
    assert broken(tmp_path / "other") == []


def test_what_the_platform_lacks_is_told_and_the_rest_is_kept(service: Service, home: Path, tmp_path: Path) -> None:
    agent = begin(service)
    keep(service, agent, "gone.bin", b"x")
    keep(service, agent, "torn.bin", b"whole")
    keep(service, agent, "kept.bin", b"kept")
    service.attempts.finish(agent, FinishReport(state=AttemptState.SUCCEEDED))
    gone, torn = key_of(agent, "gone.bin", b"x"), key_of(agent, "torn.bin", b"whole")
    service.blobs.delete(gone)
    service.blobs.write(torn, b"w")
    made = back_up(home, tmp_path / "backup")
    assert sorted(made.missing) == [gone, torn]
    manifest, faults = verify(tmp_path / "backup")
    assert (sorted(manifest.missing), faults) == ([gone, torn], [])
    with restored(tmp_path / "backup", tmp_path / "other") as other:
        assert other.blobs.read(key_of(agent, "kept.bin", b"kept")) == b"kept"
    assert {one.invariant for one in broken(tmp_path / "other")} == {"blobs_are_as_told"}


# -- again and again ----------------------------------------------------------------------------------------------
def test_a_second_backup_takes_what_is_new_and_drops_what_is_gone(service: Service, home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    agent = begin(service)
    keep(service, agent, "weights.bin", b"w" * 100_000)
    run = service.attempts.finish(agent, FinishReport(state=AttemptState.SUCCEEDED))
    first = back_up(home, folder)
    assert first.new_bytes > 100_000
    weights = Objects(folder).path(hashlib.sha256(b"w" * 100_000).hexdigest())
    assert weights.samefile(home / "blobs" / key_of(agent, "weights.bin", b"w" * 100_000)), "it was copied"
    database = Manifest.read(folder).files["db/atelier.sqlite"]
    again = back_up(home, folder)
    assert again.new_bytes <= database.size_bytes
    assert again.files == first.files
    service.runs.remove(run)
    assert weights.exists()
    back_up(home, folder)
    assert not weights.exists()
    assert verify(folder)[1] == []
    assert {path.name for path in folder.rglob("*") if path.is_file()} - {".lock", MANIFEST} == {
        content.sha256 for content in Manifest.read(folder).files.values()
    }


def test_a_backup_that_is_cut_off_leaves_the_one_before(
    service: Service, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "backup"
    ended(service)
    back_up(home, folder)
    before = Manifest.read(folder)
    agent = begin(service)
    keep(service, agent, "new.bin", b"new")
    for cut in ("wanted", "copy_sqlite"):
        with monkeypatch.context() as patch:
            patch.setattr(f"atelier.service.backups.making.{cut}", _cut_off)
            with pytest.raises(KeyboardInterrupt):
                back_up(home, folder)
        assert Manifest.read(folder) == before
        assert verify(folder)[1] == []
    assert back_up(home, folder).missing == []
    assert verify(folder)[1] == []


def _cut_off(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_backup_that_is_killed_leaves_the_one_before_or_is_whole(
    service: Service, home: Path, tmp_path: Path
) -> None:
    folder, dice = tmp_path / "backup", random.Random(5)
    back_up(home, folder)
    environ = {**os.environ, "ATELIER_HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)}
    for n in range(5):
        agent = begin(service)
        for file in range(10):
            keep(service, agent, f"{file}.bin", dice.randbytes(1000))
        shutil.rmtree(folder / ".scratch", ignore_errors=True)
        with subprocess.Popen([sys.executable, "-m", "atelier", "backup", str(folder)], env=environ) as backup:
            wait_for(lambda: (folder / ".scratch").exists() or backup.poll() is not None, "the backup to begin")
            time.sleep(0.015 * n * n)
            backup.kill()
        assert verify(folder)[1] == []
    assert back_up(home, folder).missing == []
    assert verify(folder)[1] == []
    assert not (folder / ".scratch").exists()
    assert not list((folder / "objects").glob(".part-*"))


def test_two_at_once_make_one(service: Service, home: Path, tmp_path: Path) -> None:
    for _ in range(5):
        ended(service)

    def try_once(_: int) -> str:
        try:
            back_up(home, tmp_path / "backup")
        except Conflict as problem:
            return problem.code
        return "made"

    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(try_once, range(8)))
    assert "made" in told
    assert set(told) <= {"made", "backup_running"}
    assert verify(tmp_path / "backup")[1] == []


# -- what else is in it -------------------------------------------------------------------------------------------
def test_secrets_settings_and_the_hubs_users_come_back(service: Service, home: Path, tmp_path: Path) -> None:
    (home / "secrets").mkdir(exist_ok=True)
    (home / "secrets/password").write_text("hush\n")
    (home / "ports.json").write_text('{"public": 8000}')
    with closing(sqlite3.connect(home / "db/hub.sqlite")) as hub:
        hub.execute("create table users (name text)")
        hub.execute("insert into users values ('ann')")
        hub.commit()
        back_up(home, tmp_path / "backup")
    other = tmp_path / "other"
    restore(tmp_path / "backup", other, replace=False)
    assert (other / "secrets/password").read_text() == "hush\n"
    assert (other / "atelier.yaml").read_text() == SETTINGS
    with closing(sqlite3.connect(other / "db/hub.sqlite")) as hub:
        assert hub.execute("select name from users").fetchall() == [("ann",)]
    for path in (tmp_path / "backup", *(tmp_path / "backup").rglob("*"), *(other / "db").rglob("*")):
        assert path.stat().st_mode & 0o077 == 0 or path.name == ".lock", path
    assert not (other / ".restoring").exists()


# -- damage and refusals ------------------------------------------------------------------------------------------
def damaged(folder: Path) -> Iterator[tuple[str, Path]]:
    """Files of a backup, and what is done to each."""
    files = sorted(path for path in (folder / "objects").rglob("*") if path.is_file())
    for n, path in enumerate(files):
        yield ("changed", "shortened", "removed")[n % 3], path


def test_every_damaged_file_is_found_and_nothing_is_restored(service: Service, home: Path, tmp_path: Path) -> None:
    agent = begin(service)
    service.attempts.append(agent, "log", 0, b"x" * 100)
    keep(service, agent, "a.bin", b"a" * 100)
    checkpoint(service, agent, 1, b"c" * 100)
    whole = tmp_path / "whole"
    back_up(home, whole)
    for how, path in list(damaged(whole)):
        folder = shutil.copytree(whole, tmp_path / "damaged")
        target = folder / path.relative_to(whole)
        data = target.read_bytes()
        if how == "removed":
            target.unlink()
        else:
            target.write_bytes(data[:-1] + (bytes([data[-1] ^ 1]) if how == "changed" else b""))
        _, faults = verify(folder)
        assert len(faults) == 1, (how, path, faults)
        assert str(target) in faults[0]
        with pytest.raises(RefusedInput) as caught:
            restore(folder, tmp_path / "other", replace=False)
        assert caught.value.code == "damaged_backup"
        assert not (tmp_path / "other").exists()
        shutil.rmtree(folder)


def test_a_link_in_the_place_of_a_file_is_damage(service: Service, home: Path, tmp_path: Path) -> None:
    agent = begin(service)
    keep(service, agent, "a.bin", b"a" * 100)
    back_up(home, tmp_path / "backup")
    target = Objects(tmp_path / "backup").path(hashlib.sha256(b"a" * 100).hexdigest())
    target.rename(tmp_path / "elsewhere")
    target.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RefusedInput, match="are not there") as caught:
        restore(tmp_path / "backup", tmp_path / "other", replace=False)
    assert caught.value.code == "damaged_backup"
    back_up(home, tmp_path / "backup")
    assert not target.is_symlink(), "the next backup takes the file itself"
    assert verify(tmp_path / "backup")[1] == []


def made_up(files: dict[str, str], version: int = 1) -> str:
    """A manifest that no backup has made."""
    listed = {path: {"sha256": sha256, "size_bytes": 0} for path, sha256 in files.items()}
    return json.dumps({"format": version, "made_at": "", "version": "", "files": listed, "missing": []})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        made_up({}, 2),
        made_up({"../x": "a" * 64}),
        made_up({"/x": "a" * 64}),
        made_up({"x": "../../x"}),
        made_up({"atelier.yaml": "../../x"}),
        made_up({"atelier.yaml": "a" * 64, "atelier.yaml/x": "a" * 64}),
        made_up({"secrets/x": "a" * 64, "secrets/x/y": "a" * 64}),
        made_up({"blobs": "a" * 64}),
        made_up({"blobs/runs": "a" * 64}),
        made_up({"blobs/runs/r-1": "a" * 64}),
        made_up({"blobs/runs/r-1/x": "a" * 64, "blobs/runs/r-1/x/y": "a" * 64}),
        made_up({"blobs/runs/r-1/../../../x": "a" * 64}),
        made_up({"blobs/runs/r-1/" + "x" * 256: "a" * 64}),
        made_up({"blobs/runs/r-1/\udcff": "a" * 64}),
        made_up({"run/attempts/x": "a" * 64}),
        "[" * 100_000,
    ],
)
def test_a_torn_or_made_up_manifest_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    for use in (lambda: verify(tmp_path), lambda: restore(tmp_path, tmp_path / "home", replace=True)):
        with pytest.raises(RefusedInput) as caught:
            use()
        assert caught.value.code == "not_a_backup"


def test_a_home_that_has_something_is_left_alone_unless_told(service: Service, home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    run_id = ended(service)
    back_up(home, folder)
    later = ended(service)
    code = service.blobs.read(RunPaths(later).bundle)
    service.store.close()
    with pytest.raises(Conflict) as caught:
        restore(folder, home, replace=False)
    assert caught.value.code == "home_not_empty"
    _, aside = restore(folder, home, replace=True)
    assert aside is not None
    assert (aside / "blobs" / RunPaths(later).bundle).read_bytes() == code
    kept = Store(f"sqlite:///{aside / 'db/atelier.sqlite'}")
    assert kept.runs.get(later).id == later
    kept.close()
    store = Store(f"sqlite:///{home / 'db/atelier.sqlite'}")
    assert store.runs.get(run_id).id == run_id
    with pytest.raises(NotFound):
        store.runs.get(later)
    store.close()


def test_another_disk_gets_copies_and_a_full_one_keeps_what_it_has(
    service: Service, home: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    agent = begin(service)
    keep(service, agent, "small.bin", b"s" * 1000)
    with small_disk(disk, "4m"):
        folder = disk / "backup"
        back_up(home, folder)
        before = Manifest.read(folder)
        small = Objects(folder).path(hashlib.sha256(b"s" * 1000).hexdigest())
        assert (small.read_bytes(), small.stat().st_nlink) == (b"s" * 1000, 1)
        keep(service, agent, "large.bin", os.urandom(8 << 20))
        with pytest.raises(OSError, match="No space left"):
            back_up(home, folder)
        assert Manifest.read(folder) == before
        assert verify(folder)[1] == []
        with restored(folder, tmp_path / "other") as other:
            assert other.blobs.read(key_of(agent, "small.bin", b"s" * 1000)) == b"s" * 1000


def test_what_can_not_be_backed_up_is_said(service: Service, home: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("x")
    cases = [
        (home, home / "backup", "bad_place"),
        (home, tmp_path, "bad_place"),
        (home, tmp_path / "mine", "bad_place"),
        (tmp_path / "nowhere", tmp_path / "backup", "nothing_to_back_up"),
    ]
    for source, folder, code in cases:
        with pytest.raises(AtelierError) as caught:
            back_up(source, folder)
        assert caught.value.code == code, folder
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["thesis.tex"]
    (home / "atelier.yaml").write_text("database: postgresql+psycopg://ann:s3cret@db.example/atelier\n")
    with pytest.raises(Conflict) as told:
        back_up(home, tmp_path / "backup")
    assert told.value.code == "database_elsewhere"
    assert "pg_dump --format=custom --file=atelier.dump 'postgresql://ann@db.example/atelier'" in told.value.hint
    assert "s3cret" not in str(told.value)


def test_a_damaged_database_is_not_backed_up(service: Service, home: Path, tmp_path: Path) -> None:
    ended(service)
    back_up(home, tmp_path / "backup")
    before = Manifest.read(tmp_path / "backup")
    service.store.close()
    path = home / "db/atelier.sqlite"
    path.write_bytes(b"this is no database" * 1000)
    with pytest.raises(InternalError) as caught:
        back_up(home, tmp_path / "backup")
    assert caught.value.code == "copy_failed"
    assert str(path) in caught.value.message
    assert Manifest.read(tmp_path / "backup") == before
    assert verify(tmp_path / "backup")[1] == []
