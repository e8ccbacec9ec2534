"""A clock that has jumped ahead removes nothing by its age; the log and the doctor say so."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from atelier.cli.checks import Check
from atelier.cli.keeping_checks import check_keeping
from atelier.quantities import utcnow
from atelier.service.handlers.context import Service
from atelier.service.serving import Plan, _Idle, assemble
from atelier.service.store.schema import runs
from atelier.service.timekeeping import HOLD_S, Note, read_clocks
from atelier.settings import load_settings
from atelier.storage import RunPaths
from atelier.storage.paths import upload_key
from atelier.testing.samples import finished
from tests.service_driver import SETTINGS

JUMP = timedelta(days=40)
LONG_AGO = "2020-01-01T00:00:00+00:00"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose last service saw the clock before it jumped ahead."""
    (tmp_path / "run").mkdir()
    (tmp_path / "atelier.yaml").write_text(SETTINGS + "retention: {age: 30d, size: 10Ki, keep: 0}\n")
    now = read_clocks()
    note_clock(tmp_path, Note(now.day_s - JUMP.total_seconds(), now.boot_s, now.boot))
    return tmp_path


def note_clock(home: Path, note: Note) -> None:
    (home / "run/clock.json").write_text(json.dumps(asdict(note)))


@contextmanager
def service_of(home: Path) -> Iterator[Service]:
    """The parts of a service, none of which goes by itself."""
    made = assemble(Plan(home), home / "service.sock", "token", _Idle(time.monotonic()))
    yield made
    made.store.close()


def ended(service: Service, *, size_bytes: int = 1024) -> str:
    """The id of a run that ended, as the clock has it now, long ago."""
    run_id, moment = finished(service.store), utcnow() - JUMP
    service.blobs.write(RunPaths(run_id).whole(1, "log"), b"x" * size_bytes)
    service.store.runs.recorded(run_id)
    with service.store.database.write() as connection:
        connection.execute(update(runs).where(runs.c.id == run_id).values(created_at=moment, ended_at=moment))
    return run_id


def left(service: Service, home: Path) -> list[Path]:
    """One thing of each kind that goes when it is old, as old as the jump; they are given."""
    upload, orphan = upload_key("ann#1", "0" * 64), "runs/r-aaaaaaaaaa/run.json"
    for key in (upload, orphan):
        service.blobs.write(key, b"{}")
    notes = {"looked_at": LONG_AGO, "found": {"runs/r-aaaaaaaaaa": LONG_AGO, orphan: LONG_AGO}}
    (home / "run/orphans.json").write_text(json.dumps(notes))
    layer, aside = home / "envs/layers/a.lock", home / "run/undelivered" / ended(service) / "1"
    layer.parent.mkdir(parents=True)
    layer.touch()
    aside.mkdir(parents=True)
    things, moment = [home / "blobs" / upload, layer, aside], time.time() - JUMP.total_seconds()
    for path in things:
        os.utime(path, (moment, moment))
    return [*things, home / "blobs" / orphan]


def clean(service: Service) -> None:
    """All that is done now and then."""
    asyncio.run(service.reconciler._recovery.tidy())
    for work in (service.house.expiry.apply, service.house.expire_uploads, service.house.clear_layers):
        work()
    service.house.sweeper.sweep_if_due()


def doctor(home: Path) -> Check:
    return next(check for check in check_keeping(home, load_settings(home / "atelier.yaml")) if check.name == "clock")


def test_nothing_goes_by_its_age_for_a_day(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    with service_of(home) as service, caplog.at_level(logging.WARNING, "atelier.service"):
        things = left(service, home)
        clean(service)
        assert [path for path in things if not path.exists()] == []
        assert service.store.keeping.total()[0] == 1
    assert len([text for text in caplog.messages if "jumped ahead by 40 d" in text]) == 1
    check = doctor(home)
    assert (check.status, "jumped ahead by 40 d" in check.text) == ("warn", True)

    now = read_clocks()
    note_clock(home, Note(now.day_s - HOLD_S, now.boot_s - HOLD_S, now.boot, HOLD_S, JUMP.total_seconds()))
    with service_of(home) as service:
        clean(service)
        assert [path for path in things if path.exists()] == []
        assert service.store.keeping.total()[0] == 0
    assert doctor(home).status == "ok"


def test_what_is_too_much_goes_all_the_same(home: Path) -> None:
    with service_of(home) as service:
        ended(service, size_bytes=20 * 1024)
        assert service.house.expiry.apply() == 1
