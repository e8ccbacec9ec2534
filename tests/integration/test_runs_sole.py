"""Two services over one PostgreSQL: the second is refused, and one that has lost the database to another one ends."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from atelier.records import RunState
from tests.cli_driver import wait_for
from tests.service_driver import SETTINGS, Service, service_over, write

LOCKED = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"

WAITED_FOR = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


@pytest.fixture
def database(postgresql_url: str, tmp_path: Path) -> str:
    """The URL of an empty database."""
    name = f"sole{abs(hash(tmp_path)):x}"
    with admin_of(postgresql_url) as admin:
        admin.execute(f'create database "{name}"')
    return postgresql_url.replace("/postgres?", f"/{name}?")


@contextmanager
def admin_of(url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    parts = make_url(url)
    with psycopg.connect(
        host=str(parts.query["host"]), user="atelier", dbname=parts.database, autocommit=True
    ) as connection:
        yield connection


def end_of(place: Service) -> str:
    """The line with which a service that is to end did so."""
    assert place.process is not None
    assert place.process.wait(timeout=30) == 1
    place.process = None
    return next(line for line in place.service_log.splitlines() if line.startswith("error["))


def test_a_second_service_is_refused_in_one_line(database: str, tmp_path: Path) -> None:
    settings = SETTINGS + f"database: {database}\n"
    with service_over(settings=settings) as first:
        assert first.process is not None
        second = Service(tmp_path / "second", settings)
        second.home.mkdir()
        (second.home / "atelier.yaml").write_text(settings)
        second.temporary.mkdir()
        second.process = second.spawn()
        line = end_of(second)
        assert line.startswith("error[database_in_use]: The database postgresql+psycopg://")
        assert f"process {first.process.pid} on " in line
        assert "Traceback" not in second.service_log
        first.kill()
        first.start()
        assert first.finish(write(tmp_path / "code", train__py="print('ran')")).state is RunState.SUCCEEDED


def test_who_lost_the_database_takes_it_again_where_nobody_else_has(database: str, tmp_path: Path) -> None:
    with service_over(settings=SETTINGS + f"database: {database}\n") as place, admin_of(database) as admin:
        row = admin.execute(LOCKED).fetchone()
        assert row is not None
        admin.execute("SELECT pg_terminate_backend(%s)", row)
        wait_for(lambda: admin.execute(LOCKED).fetchone() not in {None, row}, "the lock to be held again")
        assert "nothing is decided until it does" in place.service_log
        assert place.finish(write(tmp_path, train__py="print('ran')")).state is RunState.SUCCEEDED


def test_who_lost_the_database_to_another_service_ends(database: str, tmp_path: Path) -> None:
    with service_over(settings=SETTINGS + f"database: {database}\n") as place:
        with admin_of(database) as other, admin_of(database) as admin, ThreadPoolExecutor(1) as pool:
            row = admin.execute(LOCKED).fetchone()
            other.execute("SET application_name = 'the other one'")
            waiting = pool.submit(other.execute, "SELECT pg_advisory_lock(%s)", [0x61746C7372])
            wait_for(lambda: admin.execute(WAITED_FOR).fetchone() is not None, "the lock to be waited for")
            admin.execute("SELECT pg_terminate_backend(%s)", row)
            waiting.result(timeout=10)
            assert "is used by the other one." in end_of(place)
            assert "Traceback" not in place.service_log
        place.start()
