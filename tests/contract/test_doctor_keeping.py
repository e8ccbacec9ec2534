"""The doctor says what a home keeps, what goes next and what is nobody's; it changes nothing and needs no service."""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from atelier.cli.checks import Check
from atelier.cli.keeping_checks import check_keeping
from atelier.quantities import utcnow
from atelier.service.serving import Plan, _Idle, assemble
from atelier.service.store.schema import runs, transitions
from atelier.settings import load_settings
from atelier.storage import RunPaths
from atelier.testing.samples import finished
from tests.service_driver import SETTINGS
from tools.schema_fixture import FOLDER


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home with three runs, which ended one, two and three days ago, and a blob that is nobody's."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "atelier.yaml").write_text(SETTINGS)
    service = assemble(Plan(home), home / "service.sock", "token", _Idle(time.monotonic()))
    for days in (3, 2, 1):
        run_id, moment = finished(service.store), utcnow() - timedelta(days=days)
        service.blobs.write(RunPaths(run_id).whole(1, "log"), b"x" * 1000)
        service.store.runs.recorded(run_id)
        with service.store.database.write() as connection:
            connection.execute(update(runs).where(runs.c.id == run_id).values(created_at=moment, ended_at=moment))
    service.house.expiry.measure()
    service.blobs.write("runs/r-aaaaaaaaaa/run.json", b"{}")
    yield home
    service.store.close()


def look(home: Path) -> dict[str, Check]:
    """What is said, by what is looked at; nothing may be changed by it."""
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file() and not path.name.endswith("-shm")}
    found = {check.name: check for check in check_keeping(home, load_settings(home / "atelier.yaml"))}
    after = {path: path.read_bytes() for path in home.rglob("*") if path.is_file() and not path.name.endswith("-shm")}
    assert after == before
    return found


def test_all_is_told_while_a_service_has_the_database(home: Path) -> None:
    found = look(home)
    assert {name: check.status for name, check in found.items()} == dict.fromkeys(
        ("database", "clock", "retention", "orphans"), "ok"
    )
    assert "3 ended runs are kept; none goes by itself" in found["retention"].text
    assert found["orphans"].detail["count"] == 1
    assert found["orphans"].detail["size_bytes"] == 2
    assert "runs/r-aaaaaaaaaa" in found["orphans"].text


@pytest.mark.parametrize(
    ("rule", "due", "words"),
    [
        ("age: 10d, keep: 0", 0, "next goes r-"),
        ("age: 36h, keep: 0", 2, "2 go within the hour: r-"),
        ("size: 1500, keep: 0", 2, "2.9 KiB are used"),
        ("age: 36h, keep: 2", 1, "the newest 2 of each user longer"),
        ("size: 1Gi", 0, "none is due"),
    ],
)
def test_what_retention_takes_next_is_told(home: Path, rule: str, due: int, words: str) -> None:
    (home / "atelier.yaml").write_text(SETTINGS + f"retention: {{{rule}}}\n")
    check = look(home)["retention"]
    assert words in check.text
    assert (check.detail["runs"], check.detail["kept_bytes"], len(check.detail["due"])) == (3, 3000, due)


def test_a_clock_that_is_behind_is_told(home: Path) -> None:
    service = assemble(Plan(home), home / "service.sock", "token", _Idle(time.monotonic()))
    with service.store.database.write() as connection:
        connection.execute(update(transitions).values(at=utcnow() + timedelta(hours=5, minutes=30)))
    service.store.close()
    check = look(home)["clock"]
    assert check.status == "warn"
    assert "in 5 h" in check.text


def test_what_could_not_be_removed_is_told(home: Path) -> None:
    (home / "run/trash/r-aaaaaaaaaa-1-1").mkdir(parents=True)
    check = look(home)["orphans"]
    assert check.status == "warn"
    assert str(home / "run/trash/r-aaaaaaaaaa-1-1") in check.todo


def test_a_home_without_a_database_is_well(tmp_path: Path) -> None:
    found = {check.name: check.status for check in check_keeping(tmp_path, load_settings(tmp_path / "atelier.yaml"))}
    assert found == {"database": "ok"}
    assert os.listdir(tmp_path) == []


def test_an_earlier_schema_is_told_and_left(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    path = tmp_path / "db/atelier.sqlite"
    path.write_bytes(gzip.decompress((FOLDER / "0001.sqlite.gz").read_bytes()))
    found = look(tmp_path)
    assert set(found) == {"database"}
    assert found["database"].status == "warn"
    assert "0001" in found["database"].text


def test_a_damaged_database_is_told(home: Path) -> None:
    for rest in (home / "db").glob("atelier.sqlite*"):
        rest.unlink()
    (home / "db/atelier.sqlite").write_bytes(b"this is no database" * 1000)
    check = look(home)["database"]
    assert check.status == "fail"
    assert "damaged" in check.text
    assert "atelier restore" in check.todo
