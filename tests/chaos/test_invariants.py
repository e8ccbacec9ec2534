"""The checker of invariants: a home in which all is well passes, and each invariant that is broken is reported."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from atelier.local.cgroups import NOTE, group_name, make_group
from atelier.storage.paths import RunPaths
from atelier.testing.invariants import INVARIANTS, broken, main
from tests.chaos.mortal import mortal_over
from tests.chaos.works import script, state

Break = Callable[[Path, RunPaths], object]


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, RunPaths]]:
    """A home at rest, and the first of the two runs that ended in it."""
    folder = tmp_path_factory.mktemp("works")
    with mortal_over() as place:
        run_id = place.submit(script(folder), key="first", machine="gpu")
        place.check(run_id, folder, "none")
        place.end(place.submit(script(folder / "second"), key="second"))
        place.settle()
        place.service.stop()
        kept = folder / "home"
        shutil.copytree(place.service.home, kept)
        yield kept, RunPaths(run_id)


@pytest.fixture
def home(pattern: tuple[Path, RunPaths], tmp_path: Path) -> tuple[Path, RunPaths]:
    """A copy that may be broken."""
    kept, paths = pattern
    return shutil.copytree(kept, tmp_path / "home"), paths


def sql(statement: str) -> Break:
    """Change the database; ``?`` stands for the run's id."""

    def change(home: Path, paths: RunPaths) -> None:
        with closing(sqlite3.connect(home / "db/atelier.sqlite")) as database, database:
            assert database.execute(statement, [paths.run_id] * statement.count("?")).rowcount > 0

    return change


def blob(find: Callable[[RunPaths], str], data: bytes | None) -> Break:
    """Replace a blob, or remove it with None."""

    def change(home: Path, paths: RunPaths) -> None:
        path = home / "blobs" / find(paths)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        if data is not None:
            path.write_bytes(data)

    return change


def saved(paths: RunPaths, step: int) -> str:
    """Where the file lies that the run saved in a step."""
    return paths.artifact(1, f"saved-{step}.txt", sha256=hashlib.sha256(state(step)).hexdigest())


def forget_pages(home: Path, paths: RunPaths) -> None:
    """Tear the database as a disk does that forgets what it was given."""
    with closing(sqlite3.connect(home / "db/atelier.sqlite")) as database:
        database.execute("pragma wal_checkpoint(truncate)")
        (root,) = database.execute("select rootpage from sqlite_schema where name = 'ix_runs_owner_created'").fetchone()
        (size,) = database.execute("pragma page_size").fetchone()
    with (home / "db/atelier.sqlite").open("r+b") as file:
        file.seek((root - 1) * size + 200)
        file.write(b"\xff" * (size - 200))


def leave_folder(home: Path, paths: RunPaths) -> None:
    (home / "run/attempts" / paths.run_id / "1").mkdir(parents=True)


def misname_upload(home: Path, paths: RunPaths) -> None:
    next((home / "blobs/uploads").glob("*/*")).write_bytes(b"other bytes")


LEASE = (
    "insert into leases (device, resource, holder, owner, since) values ('GPU-1', 'gpu', ? || '/1', 'a', '2026-01-01')"
)
TWICE = "insert into transitions (run_id, attempt, before, after, at) values (?, 1, 'running', 'failed', '2026-01-01')"
BREAKS: list[tuple[str, Break]] = [
    ("the_database_is_sound", forget_pages),
    (
        "the_database_is_sound",
        sql("insert into artifacts values ('r-zzzzzzzzzz', 'a', 'saved', 1, 1, 'ab', '2026-01-01')"),
    ),
    ("moves_are_legal", sql("update transitions set before = 'queued' where run_id = ? and after = 'running'")),
    ("moves_are_legal", sql("delete from transitions where run_id = ? and after = 'queued'")),
    ("moves_are_legal", sql("update runs set epoch = epoch + 1 where id = ?")),
    ("an_end_comes_once", sql(TWICE)),
    ("an_end_comes_once", sql("update runs set ended_at = null where id = ?")),
    ("attempts_are_in_step", sql("update attempts set n = 2 where run_id = ?")),
    ("attempts_are_in_step", sql("update attempts set state = 'running' where run_id = ?")),
    ("attempts_are_in_step", sql("update attempts set ended_at = null where run_id = ?")),
    ("reasons_are_told", sql("update runs set state = 'failed' where id = ?")),
    ("reasons_are_told", sql("update runs set message = '' where id = ?")),
    ("results_are_true", sql("update attempts set state = 'failed' where run_id = ?")),
    ("records_are_up_to_date", blob(lambda paths: paths.record, None)),
    ("records_are_up_to_date", sql("update runs set message = 'Otherwise.' where id = ?")),
    ("records_are_up_to_date", sql("update runs set recorded = 0 where id = ?")),
    ("nothing_is_held", sql(LEASE)),
    ("no_folder_is_left", leave_folder),
    ("streams_are_whole", blob(lambda paths: paths.whole(1, "log"), b"line")),
    ("streams_are_whole", blob(lambda paths: paths.whole(1, "metrics"), None)),
    ("streams_are_whole", blob(lambda paths: paths.chunk(1, "log", 0), b"line")),
    ("points_count_once", sql("update curves set count = count + 1 where run_id = ? and name = 'loss'")),
    ("points_count_once", sql("update curves set last_value = 17.0 where run_id = ? and name = 'loss'")),
    ("points_count_once", sql("delete from curves where run_id = ? and name = 'loss'")),
    ("blobs_are_as_told", blob(lambda paths: saved(paths, 0), None)),
    ("blobs_are_as_told", blob(lambda paths: saved(paths, 1), b"short")),
    ("blobs_are_as_told", blob(lambda paths: saved(paths, 1), state(2))),
    ("blobs_are_as_told", blob(lambda paths: f"{paths.checkpoint(1, 2, copy=1)}/state.txt", b"state 1\n" * 100)),
    ("code_is_kept", blob(lambda paths: paths.bundle, b"other code")),
    ("uploads_are_what_they_are_called", misname_upload),
    ("blobs_have_owners", blob(lambda paths: paths.artifact(1, "unknown.txt", sha256="0" * 64), b"whose?")),
    ("blobs_have_owners", blob(lambda paths: "runs/r-zzzzzzzzzz/run.json", b"{}")),
    ("blobs_have_owners", blob(lambda paths: "models/somebody/tiny/1/model.json", b"{}")),
]


def test_a_home_in_which_all_is_well_passes(home: tuple[Path, RunPaths], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(home[0])]) == 0
    assert f"{len(INVARIANTS)} invariants, 0 times broken" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "harm"), BREAKS, ids=[f"{number}-{name}" for number, (name, _) in enumerate(BREAKS)])
def test_what_is_broken_is_reported(
    home: tuple[Path, RunPaths], name: str, harm: Break, capsys: pytest.CaptureFixture[str]
) -> None:
    place, paths = home
    harm(place, paths)
    assert name in {one.invariant for one in broken(place)}
    assert main([str(place)]) == 1
    assert f"{name}: " in capsys.readouterr().out


def test_a_process_of_an_ended_attempt_is_reported(home: tuple[Path, RunPaths]) -> None:
    place, paths = home
    sleeper = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        env=os.environ | {"ATELIER_ATTEMPT_KEY": f"{paths.run_id}/1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with sleeper:
        assert sleeper.stdout is not None
        sleeper.stdout.readline()
        words = [one.words for one in broken(place) if one.invariant == "no_process_is_left"]
        assert len(words) == 1
        assert str(sleeper.pid) in words[0]
        sleeper.kill()


def test_a_process_that_hides_in_the_group_of_an_ended_attempt_is_reported(home: tuple[Path, RunPaths]) -> None:
    """It has cleared its environment: nothing but the note of the group tells whose it is."""
    place, paths = home
    folder = place / "run/attempts" / paths.run_id / "1"
    folder.mkdir(parents=True)
    group = make_group(group_name(folder), memory_bytes=64 << 20, cpu=1.0)
    if group is None:
        pytest.skip("no control group can be made here")
    (folder / NOTE).write_text(json.dumps([str(path) for path in group.folders]))
    try:
        with subprocess.Popen([sys.executable, "-c", "input()"], env={}, stdin=subprocess.PIPE) as sleeper:
            for entry in group.entries:
                entry.write_text(str(sleeper.pid))
            words = [one.words for one in broken(place) if one.invariant == "no_process_is_left"]
            assert len(words) == 1
            assert str(sleeper.pid) in words[0]
            sleeper.kill()
    finally:
        group.remove()


def test_every_invariant_is_broken_once() -> None:
    assert {check.__name__ for check in INVARIANTS} == {name for name, _ in BREAKS} | {"no_process_is_left"}
