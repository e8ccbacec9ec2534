"""Databases of every schema that was released are opened by the code of now: nothing is lost, and work goes on."""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from atelier.errors import InternalError
from atelier.records import RunState
from atelier.service.store import Capacity, Quota, Store, schema
from atelier.service.store.database import Database, told_database_errors
from atelier.service.store.migrate import migrate
from atelier.testing.samples import DONE, GPU, created, queued
from tools.schema_fixture import FOLDER, told_of

KEPT = sorted(path.name.removesuffix(".gz") for path in FOLDER.glob("*.gz"))
MIGRATIONS = Path(schema.__file__).parent / "migrations"
BROKEN = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "broken", "{head}"


def upgrade():
    op.add_column("runs", sa.Column("half", sa.Integer()))
    op.drop_table("leases")
    {failure}
"""


def unpacked(name: str, folder: Path) -> Path:
    """The file of a kept SQLite database."""
    path = folder / "atelier.sqlite"
    path.write_bytes(gzip.decompress((FOLDER / f"{name}.gz").read_bytes()))
    return path


@pytest.fixture(params=KEPT)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The URL of a database that an earlier version has filled, and what that version told of it."""
    told = json.loads((FOLDER / f"{request.param}.json").read_text())
    if request.param.endswith(".sqlite"):
        yield f"sqlite:///{unpacked(request.param, tmp_path)}", told
        return
    server = request.getfixturevalue("postgresql_url")
    name, host = f"s{abs(hash(tmp_path)):x}", server.partition("host=")[2]
    with psycopg.connect(host=host, user="atelier", dbname="postgres", autocommit=True) as admin:
        admin.execute(f'create database "{name}"')
    with psycopg.connect(host=host, user="atelier", dbname=name, autocommit=True) as filling:
        filling.execute(gzip.decompress((FOLDER / f"{request.param}.gz").read_bytes()))
    yield server.replace("/postgres?", f"/{name}?"), told


def is_told(now: Any, before: Any) -> bool:
    """Whether all that was told before is told now; fields may have come since."""
    if isinstance(before, dict):
        return isinstance(now, dict) and all(key in now and is_told(now[key], one) for key, one in before.items())
    if isinstance(before, list):
        return isinstance(now, list) and len(now) == len(before) and all(map(is_told, now, before))
    return bool(now == before)


def test_there_is_a_database_of_every_earlier_schema() -> None:
    *released, _newest = sorted(path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))
    assert sorted({name.partition(".")[0] for name in KEPT}) == released, "tools.schema_fixture, with that one's code"
    assert {name.partition(".")[2] for name in KEPT} == {"sqlite", "postgresql"}


def test_all_that_was_told_is_told(old: tuple[str, dict[str, Any]]) -> None:
    url, before = old
    store = Store(url)
    now = json.loads(json.dumps(told_of(store)))
    store.close()
    queues = [set(told.pop("queue")) for told in (now, before)]
    assert queues[0] == queues[1], "the order may be fairer now"
    for run in before["runs"].values():
        run.pop("queue_position")
    assert set(now["runs"]) == set(before["runs"])
    for part, told in before.items():
        assert is_told(now[part], told), part


def test_work_goes_on_in_it(old: tuple[str, dict[str, Any]]) -> None:
    store = Store(old[0])
    live = [store.runs.get(run_id) for run_id in old[1]["live"]]
    for run in live:
        store.runs.finish(run.id, run.attempts[-1].n, DONE)
        assert store.runs.get(run.id).state is RunState.SUCCEEDED
    fresh = queued(store, "ann#1")
    started = set()
    while (claim := store.queue.claim(Capacity(devices={GPU: ["GPU-1"]}), Quota())[0]) is not None:
        store.runs.started(claim.run_id, claim.n, None)
        store.runs.finish(claim.run_id, claim.n, DONE)
        started.add(claim.run_id)
    assert started == {fresh, *old[1]["queue"]}
    ended = next(iter(started))
    store.runs.remove(ended)
    assert ended in store.removals.unswept()
    version, is_published = store.models.add(
        owner="ann#1", project="ann#1", name="digits", run_id=None, digest="4", card={},
        files=[{"path": "x", "size_bytes": 1, "sha256": "d" * 64}],
    )  # fmt: skip
    assert (version, is_published) == (4, False), "the number of a removed version was given again"
    store.close()


def test_a_copy_is_made_before_the_file_is_changed(tmp_path: Path) -> None:
    path = unpacked("0001.sqlite", tmp_path)
    before = rows(path)
    Store(f"sqlite:///{path}").close()
    (copy,) = tmp_path.glob("atelier.sqlite.before-*")
    assert copy.stat().st_mode & 0o077 == 0
    assert rows(copy) == before
    assert rows(path) != before
    copy.unlink()
    Store(f"sqlite:///{path}").close()
    assert list(tmp_path.glob("*before*")) == [], "a copy of what was not changed"


def rows(path: Path) -> list[str]:
    """All of a database as statements."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return list(connection.iterdump())


def broken_scripts(folder: Path, failure: str) -> Path:
    """The migrations, and one more that fails in its middle."""
    scripts = shutil.copytree(MIGRATIONS, folder / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    head = max(path.name[:4] for path in (scripts / "versions").glob("[0-9]*.py"))
    (scripts / "versions/broken.py").write_text(BROKEN.format(head=head, failure=failure))
    return scripts


@pytest.mark.parametrize("failure", ["raise OSError('no room')", "op.execute('this is no SQL')"], ids=["raised", "sql"])
def test_a_migration_that_fails_leaves_the_database_as_it_was(
    old: tuple[str, dict[str, Any]], tmp_path: Path, failure: str
) -> None:
    url = old[0]
    scripts = broken_scripts(tmp_path, failure)
    database = Database(url)
    path = make_url(url).database or ""
    before = rows(Path(path)) if database.is_sqlite else None
    with pytest.raises(InternalError) as caught, told_database_errors(url):
        migrate(database, scripts=scripts)
    database.close()
    assert caught.value.code == "migration_failed"
    assert "from schema 0001 to broken" in caught.value.message
    assert "as it was" in caught.value.message
    assert "\n" not in caught.value.message
    if before is not None:
        assert rows(Path(path)) == before
    store = Store(url)
    assert {run.id for run in store.runs.page("ann#1", states=(), limit=500, before=None)} <= set(old[1]["runs"])
    assert store.runs.get(created(store)).state is RunState.CREATED
    store.close()
