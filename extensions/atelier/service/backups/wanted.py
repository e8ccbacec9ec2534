"""Which blobs the rows of a database tell of: what a backup of it must have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, select

from atelier.records import FINAL_STATES, AttemptState, RunState
from atelier.service.attempts import artifact_key
from atelier.service.chunks import StreamKey
from atelier.service.store.assembly import artifact_of
from atelier.service.store.database import Database
from atelier.service.store.lifecycle import LIVE_ATTEMPTS
from atelier.service.store.schema import artifacts, attempts, checkpoints, models, runs
from atelier.storage import RunPaths
from atelier.storage.paths import model_key, upload_key


@dataclass(frozen=True)
class Wanted:
    """A blob that a row tells of, by its content as far as that is told.

    ``is_needed``: without it the backup is not whole. ``artifact`` is the path of one whose attempt still lives, which
    may be written again, and its row after it.
    """

    key: str
    sha256: str | None = None
    size_bytes: int | None = None
    is_needed: bool = True
    artifact: str | None = None


@dataclass(frozen=True)
class WantedStream:
    """The acknowledged bytes of a stream, and under which key they are to lie."""

    stream: StreamKey
    size_bytes: int
    target: str


def wanted(database: Database) -> Iterator[Wanted | WantedStream]:
    """All of a database, as of one moment."""
    with database.read() as connection:
        yield from _of_runs(connection)
        yield from _of_attempts(connection)
        yield from _of_files(connection)
        for row in connection.execute(select(models)):
            folder = model_key(row.owner, row.name, row.version)
            for file in row.files:
                yield Wanted(f"{folder}/{file['path']}", file["sha256"], file["size_bytes"])


def _of_runs(connection: Connection) -> Iterator[Wanted]:
    for row in connection.execute(select(runs.c.id, runs.c.owner, runs.c.state, runs.c.spec, runs.c.queued_at)):
        paths = RunPaths(row.id)
        yield Wanted(paths.bundle, row.spec["bundle"], is_needed=row.queued_at is not None)
        for key in (paths.record, paths.lock, paths.notebook):
            yield Wanted(key, is_needed=False)
        if row.state == RunState.CREATED:
            yield Wanted(upload_key(row.owner, row.spec["bundle"]), row.spec["bundle"], is_needed=False)


def _of_attempts(connection: Connection) -> Iterator[Wanted | WantedStream]:
    query = select(attempts, runs.c.state.label("run_state")).join(runs, runs.c.id == attempts.c.run_id)
    for row in connection.execute(query):
        if AttemptState(row.state).is_final:  # else it tells of an end that this database does not know
            yield Wanted(RunPaths(row.run_id).result(row.n), is_needed=False)
        is_over = AttemptState(row.state).is_final or row.run_state in FINAL_STATES
        for stream, size in (("log", row.log_size), ("metrics", row.metrics_size)):
            key = StreamKey(row.run_id, row.n, stream)
            yield WantedStream(key, size, key.whole if is_over else key.chunk(0))


def _of_files(connection: Connection) -> Iterator[Wanted]:
    these = (attempts.c.run_id == artifacts.c.run_id) & (attempts.c.n == artifacts.c.attempt)
    for row in connection.execute(select(artifacts, attempts.c.state).join(attempts, these)):
        key, is_live = artifact_key(row.run_id, row.attempt, artifact_of(row)), row.state in LIVE_ATTEMPTS
        yield Wanted(key, row.sha256, row.size_bytes, artifact=row.path if is_live else None)
    for row in connection.execute(select(checkpoints)):
        folder = RunPaths(row.run_id).checkpoint(row.attempt, row.step, copy=row.copy)
        for file in row.files:
            yield Wanted(f"{folder}/{file['path']}", file["sha256"], file["size_bytes"])
