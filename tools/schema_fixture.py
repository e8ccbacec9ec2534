"""Makes the kept database of the schema of now, for later code to be tried on: ``python -m tools.schema_fixture``.

Run once, with the code of a release: writes ``<schema>.sqlite.gz``, and ``<schema>.sqlite.json``, what that code told
of it, to ``tests/contract/schemas/``; given the URL of an empty PostgreSQL database, ``pg_dump`` of that one.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, text

from atelier.quantities import utcnow
from atelier.records import Artifact, AttemptState, ErrorReport, Reason, RunState
from atelier.service.store import Outcome, Store
from atelier.service.store.schema import metadata
from atelier.service.store.streams import Point
from atelier.testing.samples import DONE, beat, claimed, created, due_now, finished, queued, running, starting

FOLDER = Path(__file__).resolve().parents[1] / "tests/contract/schemas"
OWNERS = ("ann#1", "bob#2")


def main(arguments: Sequence[str]) -> int:
    """Fill a database with rows in every table, and write down what is read of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "atelier.sqlite"
        store = Store(arguments[0] if arguments else f"sqlite:///{path}")
        fill(store)
        refuse_empty_tables(store)
        name = f"{schema_of(store)}.{store.database.engine.dialect.name}"
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / f"{name}.json").write_text(json.dumps(told_of(store), indent=1, ensure_ascii=False) + "\n")
        store.close()
        content = dump_of(store) if arguments else whole(path)
    (FOLDER / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
    print(f"{FOLDER / name}.gz")
    return 0


def fill(store: Store) -> None:
    """Runs in every state of two owners, and all that the store knows of them."""
    for owner in OWNERS:
        finished(store, owner, params={"epochs": 5, "name": "naïve 🙂"}, key=f"key of {owner}", name="first")
        finished(store, owner, outcome=Outcome(AttemptState.FAILED, Reason.CODE_ERROR, "no", 1, error()))
        store.runs.cancel(queued(store, owner), grace_s=0.0)
        store.runs.remove(finished(store, owner))
    give_up(store)
    try_again(store)
    told_much(store)
    starting(store, "ann#1", gpus=1)
    publish(store)
    for owner in OWNERS:
        queued(store, owner, queue_timeout_s=3600.0, key=f"waits of {owner}")
        created(store, owner)


def error() -> ErrorReport:
    """A traceback of a user."""
    return ErrorReport(kind="ValueError", message="no", traceback="Traceback …\nValueError: no", cell=3, line=2)


def give_up(store: Store) -> None:
    """Runs that ended without an attempt, and one that was lost."""
    store.runs.expire(queued(store, "bob#2", queue_timeout_s=0.001))
    store.runs.give_up(created(store, "bob#2"), Reason.START_FAILED, "Its code did not arrive.")
    finished(store, "bob#2", outcome=Outcome(AttemptState.LOST, Reason.AGENT_LOST, "It died."))


def try_again(store: Store) -> None:
    """A run with two attempts."""
    first = running(store, "ann#1", retries=2)
    store.runs.finish(first.run_id, first.n, Outcome(AttemptState.LOST, Reason.AGENT_LOST, "It died."))
    due_now(store, first.run_id)
    second = claimed(store)
    store.runs.started(second.run_id, second.n, None)
    store.runs.finish(second.run_id, second.n, DONE)


def told_much(store: Store) -> None:
    """A live run with log, metrics, progress, artifacts and checkpoints."""
    claim = running(store, "ann#1", timeout_s=3600.0)
    key, now = (claim.run_id, claim.n), utcnow()
    store.streams.appended(*key, "log", offset=0, length=7)
    points = [Point("loss", step, 1.0 / (step + 1), now.timestamp()) for step in range(1200)]
    store.streams.appended(*key, "metrics", offset=0, length=9, points=points)
    store.streams.fold(claim.run_id)
    store.streams.appended(*key, "metrics", offset=9, length=9, points=[Point("loss", 1200, None, now.timestamp())])
    beat(store, claim, progress={"done": 3, "total": 5, "at": now.isoformat()}, usage={"cpu_percent": 7.0},
         warnings=["It is late."])  # fmt: skip
    for path, kind in (("plots/a b.png", "saved"), ("model.pt", "written"), ("train.ipynb", "notebook")):
        fields: dict[str, Any] = {"path": path, "size_bytes": 5, "sha256": "a" * 64, "kind": kind, "attempt": claim.n}
        store.artifacts.add(claim.run_id, Artifact(**fields, created_at=now))
    for step in (1, 2):
        files = [{"path": "state.pt", "size_bytes": 3, "sha256": "b" * 64}]
        store.artifacts.add_checkpoint(*key, step, files)


def publish(store: Store) -> None:
    """Versions of a model, one with an alias and one that was removed."""
    run_id = finished(store, "ann#1")
    files = [{"path": "model.onnx", "size_bytes": 7, "sha256": "c" * 64}]
    for digest in "123":
        store.models.add(owner="ann#1", project="ann#1", name="digits", run_id=run_id if digest == "2" else None,
                         digest=digest, card={"name": "digits", "formats": [digest]}, files=files)  # fmt: skip
        store.models.publish("ann#1", "digits", int(digest))
    store.models.set_alias("ann#1", "digits", "production", 2)
    store.models.remove("ann#1", "digits", 3)


def refuse_empty_tables(store: Store) -> None:
    """A table without rows would be a migration that nobody tries."""
    with store.database.read() as connection:
        empty = [
            table.name
            for table in metadata.sorted_tables
            if not connection.execute(select(func.count()).select_from(table)).scalar()
        ]
    assert not empty, f"there are no rows in {empty}"


def schema_of(store: Store) -> str:
    """The number of a database's schema."""
    with store.database.read() as connection:
        return str(connection.execute(text("select version_num from alembic_version")).scalar_one())


def told_of(store: Store) -> dict[str, Any]:
    """All that the store tells of what is in it, as JSON."""
    pages = {owner: store.runs.page(owner, states=(), limit=500, before=None) for owner in OWNERS}
    runs = [run for page in pages.values() for run in page]
    kept = [run for run in runs if run.artifacts]
    return {
        "runs": {run.id: run.model_dump(mode="json") for run in runs},
        "queue": [run_id for run_id, _ in store.queue.first(100)],
        "curves": {run.id: store.streams.curves(run.id) for run in runs if not run.state.is_final and run.artifacts},
        "artifacts": {run.id: [one.model_dump(mode="json") for one in store.artifacts.of_run(run.id)] for run in kept},
        "checkpoints": {run.id: [[one.step, one.attempt, one.files] for one in store.artifacts.checkpoints(run.id)]
                        for run in kept},
        "models": [one.model_dump(mode="json") for one in store.models.versions("ann#1", "digits")],
        "submissions": {owner: store.runs.seen_submission(owner, f"key of {owner}") for owner in OWNERS},
        "unswept": sorted(store.removals.unswept()),
        "leases": sorted(lease.device for lease in store.leases.held()),
        "newest_change": {owner: store.runs.newest_change(owner) for owner in OWNERS},
        "live": sorted(run.id for run in runs if run.state in {RunState.STARTING, RunState.RUNNING}),
    }  # fmt: skip


def whole(path: Path) -> bytes:
    """A database as one file, without a log beside it."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.close()
    return path.read_bytes()


def dump_of(store: Store) -> bytes:
    """A PostgreSQL database as statements, without what only its own shell understands."""
    url = store.database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    program = max(Path("/usr/lib/postgresql").glob("*/bin/pg_dump"))
    argv = [str(program), "--inserts", "--no-owner", "--no-privileges", url]
    text_of_all = subprocess.run(argv, check=True, capture_output=True).stdout
    return b"".join(line for line in text_of_all.splitlines(keepends=True) if not line.startswith((b"\\", b"--")))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
