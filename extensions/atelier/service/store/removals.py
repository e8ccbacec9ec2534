"""Removed runs whose blobs are still to be swept, and whether anybody needs what they stood on."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from atelier.quantities import utcnow
from atelier.service.store.database import Database, next_change
from atelier.service.store.schema import removed_runs, runs


def forget(connection: Connection, row: Row[Any]) -> None:
    """Remove a run and all that the store has of it, but a mark from which every view learns of it."""
    mark = {"id": row.id, "owner": row.owner, "change": next_change(connection), "removed_at": utcnow()}
    connection.execute(insert(removed_runs).values(**mark))
    connection.execute(delete(runs).where(runs.c.id == row.id))


class RemovalStore:
    """Marks of removed runs: id, owner, when. Keys of submits stay too, so that a repeat is told what became of it."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def unswept(self) -> list[str]:
        """Ids of removed runs whose blobs may not be gone."""
        these = removed_runs.c.swept_at.is_(None)
        with self._db.read() as connection:
            return list(connection.execute(select(removed_runs.c.id).where(these)).scalars())

    def swept(self, run_id: str) -> None:
        """Note that a removed run has no blobs any more."""
        with self._db.write() as connection:
            connection.execute(update(removed_runs).where(removed_runs.c.id == run_id).values(swept_at=utcnow()))

    def uses_bundle(self, owner: str, sha256: str) -> bool:
        """Whether a run of that owner was submitted with this bundle."""
        query = select(runs.c.id).where(runs.c.owner == owner, runs.c.spec["bundle"].as_string() == sha256).limit(1)
        with self._db.read() as connection:
            return connection.execute(query).first() is not None
