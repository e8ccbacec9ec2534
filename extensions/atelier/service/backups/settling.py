"""Makes the rows of a copied database true of the files that were taken for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import update

from atelier.service.backups.objects import Content
from atelier.service.store.database import Database
from atelier.service.store.schema import artifacts


@dataclass(frozen=True)
class Settled:
    """An artifact that its attempt had written anew and not told of yet when the database was copied."""

    run_id: str
    path: str
    content: Content


def settle(database: Database, found: Iterable[Settled]) -> None:
    """Let the rows tell of what was taken: an attempt that lived at that moment tells of nothing any more."""
    with database.write() as connection:
        for each in found:
            this = (artifacts.c.run_id == each.run_id) & (artifacts.c.path == each.path)
            values = {"sha256": each.content.sha256, "size_bytes": each.content.size_bytes}
            connection.execute(update(artifacts).where(this).values(**values))
