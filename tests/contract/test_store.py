"""The store passes the one suite over SQLite and over PostgreSQL."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, insert

from atelier.service.store import Store
from atelier.service.store.schema import counters, metadata
from atelier.testing.store import StoreContract


@pytest.fixture(scope="module")
def postgresql(postgresql_url: str) -> Iterator[Store]:
    """One migrated PostgreSQL database for all tests of this module."""
    store = Store(postgresql_url)
    yield store
    store.close()


@pytest.fixture(scope="module")
def empty_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file without rows."""
    path = tmp_path_factory.mktemp("sqlite") / "atelier.sqlite"
    Store(f"sqlite:///{path}").close()
    return path


class TestSqlite(StoreContract):
    @pytest.fixture
    def store(self, empty_sqlite: Path, tmp_path: Path) -> Iterator[Store]:
        store = Store(f"sqlite:///{shutil.copy(empty_sqlite, tmp_path)}")
        yield store
        store.close()

    def test_what_is_acknowledged_survives_a_loss_of_power(self, store: Store) -> None:
        with store.database.write() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


class TestPostgresql(StoreContract):
    @pytest.fixture
    def store(self, postgresql: Store) -> Store:
        with postgresql.database.write() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(delete(table))
            connection.execute(insert(counters).values(name="changes", value=0))
        return postgresql
