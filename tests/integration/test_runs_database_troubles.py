"""A database that is damaged, read-only or ahead of the clock: one clear line, and nothing is changed."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from atelier.quantities import utcnow
from atelier.records import RunState
from atelier.wire import API, PREFIX
from tests.cli_driver import wait_for
from tests.service_driver import Service, service_over, write

PRINT = {"train__py": "print('ran')"}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make a folder a read-only disk for the while; without root the test is skipped."""
    if subprocess.run(["mount", "--bind", folder, folder], check=False).returncode:
        pytest.skip("mounting needs root")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def last_line(place: Service) -> str:
    return next(line for line in reversed(place.service_log.splitlines()) if line.startswith("error["))


def spoil(path: Path, table: str) -> None:
    """Overwrite the root page of a table."""
    with closing(sqlite3.connect(path)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"noise" * (size // 5))


def test_damage_stops_all_writing_and_the_agents_wait(tmp_path: Path) -> None:
    with service_over() as place:
        place.finish(write(tmp_path, **PRINT))
        assert place.stop() == 0
        path, whole = place.home / "db/atelier.sqlite", place.home / "db/kept"
        whole.write_bytes(path.read_bytes())
        spoil(path, "transitions")
        place.start()
        body = {"work": {"kind": "script", "target": "train.py"}, "bundle": place.run(place.ids()[0]).spec.bundle}
        with place.http as http:
            assert http.get(f"{PREFIX}/healthz").status_code == 200
            assert http.post(f"{API}/runs", json=body).json()["error"]["code"] == "database_damaged"
            ready = http.get(f"{PREFIX}/readyz")
            assert (ready.status_code, ready.json()["error"]["code"]) == (503, "database_damaged")
            spoiled = path.read_bytes()
            refused = http.put(f"{API}/runs/last/pin")
            assert refused.json()["error"]["code"] == "database_damaged", "a table that is whole was written to"
        wait_for(lambda: "Nothing is written any more" in place.service_log, "the log to say so")
        lines = place.service_log.count("\n")
        with pytest.raises(AssertionError, match="more lines"):
            wait_for(lambda: place.service_log.count("\n") > lines + 2, "more lines", timeout_s=3)
        assert path.read_bytes() == spoiled
        assert "atelier restore" in ready.json()["error"]["hint"]
        assert place.stop() == 0
        _put_back(place, whole)


def _put_back(place: Service, whole: Path) -> None:
    for rest in place.home.glob("db/atelier.sqlite-*"):
        rest.unlink()
    whole.replace(place.home / "db/atelier.sqlite")
    place.start()


def test_damage_is_looked_for_after_a_service_was_killed(tmp_path: Path) -> None:
    with service_over() as place:
        run = place.finish(write(tmp_path, **PRINT))
        place.client.pin(run.id)
        place.kill()
        path, whole = place.home / "db/atelier.sqlite", place.home / "db/kept"
        assert (place.home / "db/atelier.sqlite-wal").stat().st_size > 0
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        whole.write_bytes(path.read_bytes())
        spoil(path, "aliases")
        (place.home / "db/atelier.sqlite-wal").write_bytes(b"x" * 100)
        place.start()
        with place.http as http:
            wait_for(lambda: http.get(f"{PREFIX}/readyz").status_code == 503, "the damage to be found")
            assert http.get(f"{PREFIX}/readyz").json()["error"]["code"] == "database_damaged"
        assert place.stop() == 0
        _put_back(place, whole)
        with place.http as http:
            assert http.get(f"{PREFIX}/readyz").status_code == 200


def test_a_read_only_disk_is_refused_in_one_line(tmp_path: Path) -> None:
    with service_over() as place:
        run = place.finish(write(tmp_path, **PRINT))
        assert place.stop() == 0
        db = place.home / "db"
        before = files(db)
        with read_only(db):
            assert place.spawn().wait(timeout=60) == 1
            assert last_line(place).startswith("error[database_unusable]: The database ")
            assert "readonly" in last_line(place) or "unable to open" in last_line(place)
        home = place.home
        with read_only(home / "run"):
            assert place.spawn().wait(timeout=60) == 1
            assert last_line(place).startswith("error[home_not_writable]: ")
            assert "read-only disk" in last_line(place)
        assert "Traceback" not in place.service_log
        assert files(db) == before
        place.start()
        assert place.ids() == [run.id]


def test_a_clock_that_went_back_is_told(tmp_path: Path) -> None:
    with service_over() as place:
        run = place.finish(write(tmp_path, **PRINT))
        assert place.stop() == 0
        later = (utcnow() + timedelta(days=2)).replace(tzinfo=None).isoformat(sep=" ")
        with closing(sqlite3.connect(place.home / "db/atelier.sqlite")) as connection:
            connection.execute("UPDATE transitions SET at = ?", (later,))
            connection.commit()
        place.start()
        wait_for(lambda: "The clock of this computer went back" in place.service_log, "the log to say so")
        assert "1 d 23 h" in place.service_log or "2 d" in place.service_log
        assert place.finish(write(tmp_path, **PRINT)).state is RunState.SUCCEEDED
        assert place.run(run.id).state is RunState.SUCCEEDED
