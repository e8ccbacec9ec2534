"""What removed runs leave in the store, and whether anybody still needs what they stood on."""

from __future__ import annotations

from sqlalchemy import delete, select

from atelier.service.store.database import Database
from atelier.service.store.schema import checkpoints, curves, fresh_points, runs


class RemovalStore:
    """Rows of runs that are marked as removed. The run's own row stays, so that every view learns of it."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def removed(self) -> list[str]:
        """Ids of all runs that are marked as removed."""
        with self._db.read() as connection:
            return list(connection.execute(select(runs.c.id).where(runs.c.deleted_at.is_not(None))).scalars())

    def forget(self, run_id: str) -> None:
        """Remove a run's curves and checkpoints; nothing happens when there are none."""
        with self._db.write() as connection:
            for table in (curves, fresh_points, checkpoints):
                connection.execute(delete(table).where(table.c.run_id == run_id))

    def uses_bundle(self, owner: str, sha256: str) -> bool:
        """Whether a run of that owner, not removed, was submitted with this bundle."""
        mine = (runs.c.owner == owner) & runs.c.deleted_at.is_(None)
        query = select(runs.c.id).where(mine, runs.c.spec["bundle"].as_string() == sha256).limit(1)
        with self._db.read() as connection:
            return connection.execute(query).first() is not None
