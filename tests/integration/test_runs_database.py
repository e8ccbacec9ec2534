"""A database that was emptied, lost or damaged under a home full of records: told, never taken for a new one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.service_driver import service_over, write

PRINT = {"train__py": "print('ran')"}


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("lose", [empty, Path.unlink], ids=["emptied", "removed"])
def test_a_lost_database_is_not_begun_anew_over_old_records(tmp_path: Path, lose: Callable[[Path], None]) -> None:
    with service_over() as place:
        run = place.finish(write(tmp_path, **PRINT))
        assert place.stop() == 0
        path, kept = place.home / "db/atelier.sqlite", place.home / "db/backup"
        for rest in place.home.glob("db/atelier.sqlite-*"):
            rest.unlink()
        kept.write_bytes(path.read_bytes())
        lose(path)
        for _ in range(2):
            process = place.spawn()
            assert process.wait(timeout=60) == 1
            first, hint = place.service_log.splitlines()[-2:]
            assert first.startswith(f"error[database_empty]: The database {path} is new or empty"), first
            assert f"runs/{run.id}/" in first
            assert "backup" in hint
        for rest in place.home.glob("db/atelier.sqlite-*"):
            rest.unlink()
        kept.replace(path)
        place.start()
        assert place.ids() == [run.id]


def test_damage_that_is_met_later_is_told_to_who_meets_it(tmp_path: Path) -> None:
    with service_over() as place:
        place.finish(write(tmp_path, **PRINT))
        assert place.stop() == 0
        path, whole = place.home / "db/atelier.sqlite", place.home / "db/backup"
        whole.write_bytes(path.read_bytes())
        connection = sqlite3.connect(path)
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'transitions'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        connection.close()
        with path.open("r+b") as file:
            file.seek((root - 1) * size)
            file.write(b"noise" * (size // 5))
        place.start()
        before = place.service_log.count("Traceback")
        body = {"work": {"kind": "script", "target": "train.py"}, "bundle": place.run(place.ids()[0]).spec.bundle}
        with place.http as http:
            answers = [http.post("/services/atelier/api/v1/runs", json=body) for _ in range(2)]
        for answer in answers:
            assert answer.status_code == 500
            error = answer.json()["error"]
            assert error["code"] == "database_damaged"
            assert str(path) in error["message"]
            assert "backup" in error["hint"]
        assert place.service_log.count("Traceback") == before
        assert place.stop() == 0
        for rest in place.home.glob("db/atelier.sqlite-*"):
            rest.unlink()
        whole.replace(path)
        place.start()
