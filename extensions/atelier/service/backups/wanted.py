"""Which blobs the rows of a database tell of: what a backup of it must have.

Those come first that may go at any moment: a run that is at work keeps few checkpoints, and leaves its files anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, Table, select

from atelier.records import FINAL_STATES, AttemptState, RunState
from atelier.service.attempts import artifact_key
from atelier.service.chunks import StreamKey
from atelier.service.store.assembly import artifact_of
from atelier.service.store.database import Database
from atelier.service.store.schema import artifacts, attempts, checkpoints, models, runs
from atelier.storage import RunPaths
from atelier.storage.paths import model_key, upload_key

AT_WORK = frozenset({RunState.STARTING.value, RunState.RUNNING.value})


@dataclass(frozen=True)
class Row:
    """A row that tells of blobs, and goes with them."""

    table: Table
    key: tuple[tuple[str, object], ...]


@dataclass(frozen=True)
class Wanted:
    """A blob that a row tells of, by its content as far as that is told.

    ``is_needed``: without it the backup is not whole. ``is_passing``: its run is at work, and may let it go.
    """

    key: str
    row: Row
    sha256: str | None = None
    size_bytes: int | None = None
    is_needed: bool = True
    is_passing: bool = False


@dataclass(frozen=True)
class WantedStream:
    """The acknowledged bytes of a stream, and under which key they are to lie."""

    stream: StreamKey
    size_bytes: int
    target: str

    @property
    def key(self) -> str:
        """As a `Wanted` has it."""
        return self.target

    @property
    def row(self) -> Row:
        """That of its run: an attempt goes with that alone."""
        return _run(self.stream.run_id)


def wanted(database: Database) -> Iterator[Wanted | WantedStream]:
    """All of a database, as of one moment."""
    with database.read() as connection:
        of_files = [*_of_files(connection)]
        yield from (each for each in of_files if each.is_passing)
        yield from _of_runs(connection)
        yield from _of_attempts(connection)
        yield from (each for each in of_files if not each.is_passing)
        for row in connection.execute(select(models).where(models.c.published)):
            folder = model_key(row.owner, row.name, row.version)
            this = Row(models, (("owner", row.owner), ("name", row.name), ("version", row.version)))
            for file in row.files:
                yield Wanted(f"{folder}/{file['path']}", this, file["sha256"], file["size_bytes"])


def _run(run_id: str) -> Row:
    return Row(runs, (("id", run_id),))


def _of_runs(connection: Connection) -> Iterator[Wanted]:
    for row in connection.execute(select(runs.c.id, runs.c.owner, runs.c.state, runs.c.spec, runs.c.queued_at)):
        paths, this = RunPaths(row.id), _run(row.id)
        yield Wanted(paths.bundle, this, row.spec["bundle"], is_needed=row.queued_at is not None)
        for key in (paths.record, paths.lock, paths.notebook):
            yield Wanted(key, this, is_needed=False)
        if row.state == RunState.CREATED:
            yield Wanted(upload_key(row.owner, row.spec["bundle"]), this, row.spec["bundle"], is_needed=False)


def _of_attempts(connection: Connection) -> Iterator[Wanted | WantedStream]:
    query = select(attempts, runs.c.state.label("run_state")).join(runs, runs.c.id == attempts.c.run_id)
    for row in connection.execute(query):
        if AttemptState(row.state).is_final:  # else it tells of an end that this database does not know
            yield Wanted(RunPaths(row.run_id).result(row.n), _run(row.run_id), is_needed=False)
        is_over = AttemptState(row.state).is_final or row.run_state in FINAL_STATES
        for stream, size in (("log", row.log_size), ("metrics", row.metrics_size)):
            key = StreamKey(row.run_id, row.n, stream)
            yield WantedStream(key, size, key.whole if is_over else key.chunk(0))


def _of_files(connection: Connection) -> Iterator[Wanted]:
    """Of checkpoints first those that are published longest: the next one takes their place."""
    of_run = select(checkpoints, runs.c.state).join(runs, runs.c.id == checkpoints.c.run_id)
    for row in connection.execute(of_run.order_by(checkpoints.c.created_at)):
        folder = RunPaths(row.run_id).checkpoint(row.attempt, row.step, copy=row.copy)
        this, is_passing = Row(checkpoints, (("run_id", row.run_id), ("step", row.step))), row.state in AT_WORK
        for file in row.files:
            key = f"{folder}/{file['path']}"
            yield Wanted(key, this, file["sha256"], file["size_bytes"], is_passing=is_passing)
    for row in connection.execute(select(artifacts, runs.c.state).join(runs, runs.c.id == artifacts.c.run_id)):
        this, is_passing = Row(artifacts, (("run_id", row.run_id), ("path", row.path))), row.state in AT_WORK
        key = artifact_key(row.run_id, row.attempt, artifact_of(row))
        yield Wanted(key, this, row.sha256, row.size_bytes, is_passing=is_passing)
