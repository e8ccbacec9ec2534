"""Which blobs the rows of the store own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import select

from atelier.records import FINAL_STATES
from atelier.service.store.database import Database
from atelier.service.store.lifecycle import LIVE_ATTEMPTS
from atelier.service.store.schema import artifacts, attempts, checkpoints, models, runs
from atelier.storage.paths import RunPaths, model_key


@dataclass
class RunOwns:
    """What one run owns: numbers of its attempts, the one that may still write (or None), keys of what it keeps.

    ``is_stored``: it has ended, and its streams lie as one object each.
    """

    is_stored: bool
    live: int | None = None
    attempts: set[int] = field(default_factory=set)
    artifacts: set[str] = field(default_factory=set)
    checkpoints: set[str] = field(default_factory=set)


class OwningStore:
    """Reads many runs at once: a query for each table, however many runs are asked for."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def of_runs(self, run_ids: Sequence[str]) -> dict[str, RunOwns]:
        """What these runs own, all at one moment; those that are not there are left out."""
        with self._db.read() as connection:
            ours = select(runs.c.id, runs.c.state, runs.c.recorded).where(runs.c.id.in_(run_ids))
            final = {state.value for state in FINAL_STATES}
            found = {row.id: RunOwns(row.recorded and row.state in final) for row in connection.execute(ours)}
            tries = select(attempts.c.run_id, attempts.c.n, attempts.c.state).where(attempts.c.run_id.in_(run_ids))
            for attempt in connection.execute(tries):
                found[attempt.run_id].attempts.add(attempt.n)
                if attempt.state in LIVE_ATTEMPTS:
                    found[attempt.run_id].live = attempt.n
            files = select(artifacts.c.run_id, artifacts.c.path, artifacts.c.sha256, artifacts.c.attempt)
            for file in connection.execute(files.where(artifacts.c.run_id.in_(run_ids))):
                key = RunPaths(file.run_id).artifact(file.attempt, file.path, sha256=file.sha256)
                found[file.run_id].artifacts.add(key)
            for one in connection.execute(select(checkpoints).where(checkpoints.c.run_id.in_(run_ids))):
                folder = RunPaths(one.run_id).checkpoint(one.attempt, one.step, copy=one.copy)
                found[one.run_id].checkpoints |= {f"{folder}/{file['path']}" for file in one.files}
        return found

    def of_models(self) -> set[str]:
        """Keys of the files of all versions of models."""
        with self._db.read() as connection:
            rows = connection.execute(select(models.c.owner, models.c.name, models.c.version, models.c.files))
            return {
                f"{model_key(row.owner, row.name, row.version)}/{file['path']}" for row in rows for file in row.files
            }
