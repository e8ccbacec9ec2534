"""Takes out of a copied database what went while its blobs were taken."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import and_, delete

from atelier.service.backups.wanted import Row
from atelier.service.store.database import Database
from atelier.service.store.schema import aliases, leases, models, runs, submissions


def leave_out(database: Database, gone: Iterable[Row]) -> None:
    """Let a copy tell of nothing that the platform has removed, or replaced, since: with a run goes all that it has."""
    with database.write() as connection:
        for row in gone:
            these = (row.table.c[column] == value for column, value in row.key)
            connection.execute(delete(row.table).where(and_(*these)))
            if row.table is models:
                its = (aliases.c[column] == value for column, value in row.key)
                connection.execute(delete(aliases).where(and_(*its)))
            elif row.table is runs:
                ((_, run_id),) = row.key
                connection.execute(delete(submissions).where(submissions.c.run_id == run_id))
                connection.execute(delete(leases).where(leases.c.holder.startswith(f"{run_id}/")))
