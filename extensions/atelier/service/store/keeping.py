"""What is kept for how long: pins, how much each ended run takes, and which runs may go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select, update

from atelier.quantities import utcnow
from atelier.records import FINAL_STATES
from atelier.service.store.database import Database, next_change
from atelier.service.store.lifecycle import run_row, unknown_run
from atelier.service.store.removals import forget
from atelier.service.store.schema import models, runs, transitions


@dataclass(frozen=True)
class Removable:
    """A run that nothing keeps: it has ended, isn't pinned, and no version of a model came from it."""

    id: str
    owner: str
    ended_at: datetime
    kept_bytes: int | None


class KeepingStore:
    """Pins, and which ended runs may go. A run that a version of a model came from stays as long as that version."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def pin(self, run_id: str, *, pinned: bool) -> None:
        """Keep a run until its owner removes it, or no longer; nothing changes when it is so already.

        Raises
        ------
        NotFound
            ``unknown_run``.
        """
        with self._db.write() as connection:
            row = run_row(connection, run_id)
            if row is None:
                raise unknown_run(run_id)
            if row.pinned != pinned:
                values = {"pinned": pinned, "change": next_change(connection)}
                connection.execute(update(runs).where(runs.c.id == run_id).values(**values))

    def unmeasured(self, most: int) -> list[str]:
        """Ids of ended runs, all of whose files are stored, whose bytes nobody has counted; at most so many."""
        these = runs.c.kept_bytes.is_(None) & runs.c.recorded.is_(True)
        with self._db.read() as connection:
            return list(connection.execute(select(runs.c.id).where(these).limit(most)).scalars())

    def measured(self, kept_bytes: Mapping[str, int]) -> None:
        """Note how many bytes the files of ended runs have, by their ids."""
        with self._db.write() as connection:
            for run_id, size in kept_bytes.items():
                connection.execute(update(runs).where(runs.c.id == run_id).values(kept_bytes=size))

    def total(self) -> tuple[int, int]:
        """How many ended runs there are, and the bytes of those that were counted."""
        with self._db.read() as connection:
            query = select(func.count(), func.sum(runs.c.kept_bytes)).where(_is_final())
            count, kept_bytes = connection.execute(query).one()
        return int(count), int(kept_bytes or 0)

    def by_owner(self) -> dict[str, int]:
        """For each owner the bytes of the ended runs that were counted and that no pin and no model keeps."""
        query = select(runs.c.owner, func.sum(runs.c.kept_bytes)).where(_is_final(), ~_is_kept()).group_by(runs.c.owner)
        with self._db.read() as connection:
            return {owner: int(kept_bytes or 0) for owner, kept_bytes in connection.execute(query)}

    def newest_moment(self) -> datetime:
        """When a run moved last, as the clock of then had it; now, where none has."""
        query = select(transitions.c.at).order_by(transitions.c.seq.desc()).limit(1)
        with self._db.read() as connection:
            return connection.execute(query).scalar() or utcnow()

    def removable(self, keep: int) -> list[Removable]:
        """Runs that may go, those that ended first to begin with; never the newest ``keep`` ended ones of an owner."""
        place = func.row_number().over(partition_by=runs.c.owner, order_by=(runs.c.created_at.desc(), runs.c.id.desc()))
        columns = (runs.c.id, runs.c.owner, runs.c.ended_at, runs.c.kept_bytes)
        ended = select(*columns, _is_kept().label("kept"), place.label("place")).where(_is_final()).subquery()
        query = select(ended).where(ended.c.place > keep, ~ended.c.kept).order_by(ended.c.ended_at, ended.c.id)
        with self._db.read() as connection:
            return [Removable(row.id, row.owner, row.ended_at, row.kept_bytes) for row in connection.execute(query)]

    def release(self, run_id: str) -> bool:
        """Forget a run as `RunStore.remove` does, unless it is kept by now; whether it is gone."""
        with self._db.write() as connection:
            row = _removable_row(connection, run_id)
            if row is not None:
                forget(connection, row)
        return row is not None


def _removable_row(connection: Connection, run_id: str) -> Any:
    return connection.execute(select(runs).where(runs.c.id == run_id, _is_final(), ~_is_kept())).first()


def _is_final() -> ColumnElement[bool]:
    return runs.c.state.in_([state.value for state in FINAL_STATES])


def _is_kept() -> ColumnElement[bool]:
    return runs.c.pinned | runs.c.id.in_(select(models.c.run_id).where(models.c.run_id.is_not(None)))
