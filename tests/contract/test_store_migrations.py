"""The migrations make exactly the tables that the code uses, once, and never touch what a newer Atelier has made."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from atelier.errors import Conflict, InternalError
from atelier.service.store import Store
from atelier.service.store.schema import metadata
from atelier.testing.samples import created


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without any table."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'atelier.sqlite'}"
    server: str = request.getfixturevalue("postgresql_url")
    name = f"m{abs(hash(tmp_path)):x}"
    with psycopg.connect(
        host=server.partition("host=")[2], user="atelier", dbname="postgres", autocommit=True
    ) as admin:
        admin.execute(f'create database "{name}"')
    return server.replace("/postgres?", f"/{name}?")


def test_the_tables_are_those_of_the_code(url: str) -> None:
    store = Store(url)
    with store.database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    store.close()


def test_a_second_opening_keeps_what_is_there(url: str) -> None:
    first = Store(url)
    run_id = created(first)
    first.close()
    second = Store(url)
    assert second.runs.get(run_id).id == run_id
    second.close()


def test_two_that_open_at_once_make_the_tables_once(url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        for store in [each.result(timeout=60) for each in [pool.submit(Store, url) for _ in range(4)]]:
            store.close()


def test_a_newer_database_is_left_alone(url: str) -> None:
    store = Store(url)
    with store.database.write() as connection:
        connection.execute(text("update alembic_version set version_num = '9999'"))
    store.close()
    with pytest.raises(Conflict, match="9999") as caught:
        Store(url)
    assert caught.value.code == "newer_database"


def test_a_database_that_can_not_be_opened_is_told_without_its_password(tmp_path: Path) -> None:
    for wrong in (f"sqlite:///{tmp_path}/nowhere/x.sqlite", "postgresql+psycopg://ann:s3cret@/x?host=/nonexistent"):
        with pytest.raises(InternalError) as caught:
            Store(wrong)
        assert caught.value.code == "database_unusable"
        assert "s3cret" not in str(caught.value)


def damaged(path: Path) -> bytes:
    """A database whose header is whole, and nothing else."""
    Store(f"sqlite:///{path}").close()
    return path.read_bytes()[:4096] + b"A" * (path.stat().st_size - 4096)


@pytest.mark.parametrize(
    ("make", "words"),
    [(lambda path: b"this is no database" * 100, "file is not a database"), (damaged, "malformed")],
    ids=["garbage", "torn"],
)
def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, make: Callable[[Path], bytes], words: str) -> None:
    path = tmp_path / "atelier.sqlite"
    path.write_bytes(made := make(path))
    with pytest.raises(InternalError) as caught:
        Store(f"sqlite:///{path}")
    assert caught.value.code == "database_damaged"
    assert str(path) in caught.value.message
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert "backup" in caught.value.hint
    assert path.read_bytes() == made, "it was changed"
