"""A database that another program has locked: who that is, is told in one line, and what was asked is not done."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from atelier.errors import InternalError
from atelier.service.store import Store
from atelier.service.troubles import trouble_of
from atelier.storage import open_blobs
from atelier.testing.samples import finished
from atelier.wire import status_of

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    connection.execute(statement)
print("held", flush=True)
sys.stdin.readline()
"""
WRITES = ("BEGIN IMMEDIATE",)
ALONE = ("PRAGMA locking_mode=EXCLUSIVE", "BEGIN EXCLUSIVE")


@contextmanager
def held(database: Path, *statements: str) -> Iterator[int]:
    """Another program that has executed this and does not end; its process id."""
    argv = [sys.executable, "-c", HOLD, str(database), *statements]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            yield holder.pid
        finally:
            holder.kill()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database that waits for nobody for long."""
    monkeypatch.setattr("atelier.service.store.database.PATIENCE_S", 0.3)
    path = tmp_path / "atelier.sqlite"
    Store(f"sqlite:///{path}").close()
    return path


@pytest.mark.parametrize("statements", [WRITES, ALONE], ids=["writes", "alone"])
def test_a_service_that_can_not_begin_says_who_is_in_the_way(path: Path, statements: tuple[str, ...]) -> None:
    with held(path, *statements) as pid:
        before = path.read_bytes()
        with pytest.raises(InternalError) as caught:
            Store(f"sqlite:///{path}")
        assert path.read_bytes() == before
    assert caught.value.code == "database_locked"
    assert caught.value.message.startswith(f"The database {path} is locked by process {pid} (python")
    Store(f"sqlite:///{path}").close()


def test_who_writes_meanwhile_is_told_to_wait(path: Path) -> None:
    store = Store(f"sqlite:///{path}")
    run_id = finished(store)
    with held(path, *WRITES) as pid:
        with pytest.raises(OperationalError) as caught:
            store.keeping.pin(run_id, pinned=True)
        told = trouble_of(caught.value, store, open_blobs(path.parent.as_uri()))
        assert told is not None
        assert (told.code, status_of(told)) == ("database_locked", 503)
        assert f"process {pid} " in told.message
        assert not store.runs.get(run_id).pinned, "what is read needs no lock"
    assert store.database.damage is None
    store.keeping.pin(run_id, pinned=True)
    assert store.runs.get(run_id).pinned
    store.close()
