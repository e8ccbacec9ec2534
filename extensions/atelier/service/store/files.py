"""Artifacts, checkpoints and model versions in the store: what is where, by content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, UnaryExpression, and_, delete, func, insert, select, update

from atelier.errors import NotFound, RefusedInput
from atelier.quantities import utcnow
from atelier.records import Artifact, ModelVersion
from atelier.service.store.assembly import artifact_of, model_of
from atelier.service.store.database import Database, next_change
from atelier.service.store.lifecycle import live_pair
from atelier.service.store.schema import aliases, artifacts, checkpoints, counters, models, runs

MOST_CHECKPOINTS = 3


@dataclass(frozen=True)
class PublishedCheckpoint:
    """A checkpoint whose files (``path``, ``size_bytes``, ``sha256``) an attempt has stored whole.

    ``copy`` counts what the attempt has published at that step; each lies in a folder of its own.
    """

    step: int
    attempt: int
    copy: int
    files: list[dict[str, Any]]
    created_at: datetime


class ArtifactStore:
    """Files that runs left."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, run_id: str, artifact: Artifact) -> list[Artifact]:
        """Note an artifact of a live attempt; those that are the run's no more, for their bytes to go.

        One of the same path is replaced, whose bytes stay where they are the same, and so is what an earlier attempt
        left where the path has a folder, or below the path. What the code has saved stays ``saved`` when the same file
        is found in its working directory.
        """
        with self._db.write() as connection:
            live_pair(connection, run_id, artifact.attempt)
            this = (artifacts.c.run_id == run_id) & (artifacts.c.path == artifact.path)
            same = (artifacts.c.attempt == artifact.attempt) & (artifacts.c.sha256 == artifact.sha256)
            saved = select(artifacts.c.path).where(this, same, artifacts.c.kind == "saved")
            if artifact.kind == "written" and connection.execute(saved).first() is not None:
                return []
            near = _in_the_way(connection, run_id, artifact.path)
            gone = [old for old in near if old.path == artifact.path or old.attempt < artifact.attempt]
            these = artifacts.c.path.in_([old.path for old in gone])
            connection.execute(delete(artifacts).where(artifacts.c.run_id == run_id, these))
            connection.execute(insert(artifacts).values(run_id=run_id, **artifact.model_dump()))
            connection.execute(update(runs).where(runs.c.id == run_id).values(change=next_change(connection)))
        kept = (artifact.attempt, artifact.path, artifact.sha256)
        return [old for old in gone if (old.attempt, old.path, old.sha256) != kept]

    def has_any(self, run_id: str, n: int) -> bool:
        """Whether an attempt has left an artifact or a checkpoint that the run still has."""
        with self._db.read() as connection:
            return any(
                connection.execute(
                    select(table.c.run_id).where(table.c.run_id == run_id, table.c.attempt == n).limit(1)
                ).first()
                for table in (artifacts, checkpoints)
            )

    def has_content(self, run_id: str, n: int, sha256: str) -> bool:
        """Whether an attempt has left an artifact of that content."""
        these = (artifacts.c.run_id == run_id) & (artifacts.c.attempt == n) & (artifacts.c.sha256 == sha256)
        with self._db.read() as connection:
            return connection.execute(select(artifacts.c.path).where(these).limit(1)).first() is not None

    def check_place(self, run_id: str, n: int, path: str) -> None:
        """Whether an attempt's own files leave room for one of that path.

        Raises
        ------
        RefusedInput
            ``path_taken``.
        """
        with self._db.read() as connection:
            found = _in_the_way(connection, run_id, path)
        mine = [old.path for old in found if old.attempt == n and old.path != path]
        if mine:
            raise RefusedInput(
                "path_taken",
                f"{path[:200]!r} and {mine[0][:200]!r} can't both be kept: one would be a folder of the other.",
                hint="Give one of them another name.",
            )

    def of_run(self, run_id: str) -> list[Artifact]:
        """All artifacts of a run, by path."""
        with self._db.read() as connection:
            rows = connection.execute(select(artifacts).where(artifacts.c.run_id == run_id).order_by(artifacts.c.path))
            return [artifact_of(row) for row in rows]

    def get(self, run_id: str, path: str) -> Artifact:
        """One artifact.

        Raises
        ------
        NotFound
            ``unknown_artifact``.
        """
        with self._db.read() as connection:
            this = (artifacts.c.run_id == run_id) & (artifacts.c.path == path)
            row = connection.execute(select(artifacts).where(this)).first()
        if row is None:
            raise NotFound(
                "unknown_artifact",
                f"Run {run_id} has no artifact {path[:200]!r}.",
                hint=f"'atelier show {run_id}' lists them.",
            )
        return artifact_of(row)

    def total_bytes(self, run_id: str, besides: str | None = None) -> int:
        """Bytes of all artifacts of a run, but for the one of the path ``besides``."""
        query = select(func.sum(artifacts.c.size_bytes)).where(artifacts.c.run_id == run_id)
        if besides is not None:
            query = query.where(artifacts.c.path != besides)
        with self._db.read() as connection:
            return int(connection.execute(query).scalar() or 0)

    def add_checkpoint(
        self, run_id: str, n: int, step: int, files: Sequence[dict[str, Any]], *, copy: int = 1
    ) -> list[PublishedCheckpoint]:
        """Publish a checkpoint whose files are all stored; those that are published no more, for their files to go.

        One of the same step is replaced, and of all only the `MOST_CHECKPOINTS` that were published last are kept.
        """
        with self._db.write() as connection:
            live_pair(connection, run_id, n)
            before = _checkpoints(connection, run_id, checkpoints.c.created_at.desc(), checkpoints.c.step.desc())
            same = [one for one in before if one.step == step]
            gone = same + [one for one in before if one.step != step][MOST_CHECKPOINTS - 1 :]
            these = (checkpoints.c.run_id == run_id) & checkpoints.c.step.in_([one.step for one in gone])
            connection.execute(delete(checkpoints).where(these))
            row = {"run_id": run_id, "step": step, "attempt": n, "copy": copy, "files": list(files)}
            connection.execute(insert(checkpoints).values(**row, created_at=utcnow()))
        return [one for one in gone if (one.attempt, one.step, one.copy) != (n, step, copy)]

    def checkpoints(self, run_id: str) -> list[PublishedCheckpoint]:
        """A run's published checkpoints, newest step first."""
        with self._db.read() as connection:
            return _checkpoints(connection, run_id, checkpoints.c.step.desc())


def _in_the_way(connection: Connection, run_id: str, path: str) -> list[Artifact]:
    """A run's artifacts that no file system could have beside one of that path: at it, above it, or below it."""
    parts = path.split("/")
    above = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
    # LIKE takes letters of either case for the same in SQLite, and the order of texts is a locale's in PostgreSQL.
    near = artifacts.c.path.in_(above) | artifacts.c.path.startswith(f"{path}/", autoescape=True)
    rows = connection.execute(select(artifacts).where(artifacts.c.run_id == run_id, near))
    return [artifact_of(row) for row in rows if row.path in above or row.path.startswith(f"{path}/")]


def _checkpoints(connection: Connection, run_id: str, *order: UnaryExpression[Any]) -> list[PublishedCheckpoint]:
    rows = connection.execute(select(checkpoints).where(checkpoints.c.run_id == run_id).order_by(*order))
    return [PublishedCheckpoint(row.step, row.attempt, row.copy, row.files, row.created_at) for row in rows]


class ModelStore:
    """Model versions, immutable, and their aliases, movable."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, *, owner: str, project: str, name: str, run_id: str | None, digest: str, card: dict[str, Any],
            files: list[dict[str, Any]]) -> tuple[int, bool]:  # fmt: skip
        """The version of a package, and whether it is published: the same content from the same run is the same one.

        A new one is nobody's until `publish`. Versions count up by owner and name; the number of a removed one is never
        given again.
        """
        with self._db.write() as connection:
            mine = (models.c.owner == owner) & (models.c.name == name)
            same = mine & (models.c.digest == digest) & (models.c.run_id.is_not_distinct_from(run_id))
            known = connection.execute(select(models.c.version, models.c.published).where(same)).first()
            if known is not None:
                return int(known.version), bool(known.published)
            version = _next_version(connection, owner, name)
            row = {"owner": owner, "project": project, "name": name, "version": version, "run_id": run_id}
            size = sum(int(file["size_bytes"]) for file in files)
            kept = {"digest": digest, "card": card, "files": files, "size_bytes": size, "created_at": utcnow()}
            connection.execute(insert(models).values(**row, **kept))
            return version, False

    def publish(self, owner: str, name: str, version: int) -> None:
        """Let a version be seen: its files are there. Nothing happens when it is published, or was removed."""
        with self._db.write() as connection:
            connection.execute(update(models).where(_version(owner, name, version)).values(published=True))

    def unfinished(self, before: datetime) -> list[tuple[str, str, int]]:
        """Owner, name and number of the versions that were begun before that and are not published."""
        query = select(models.c.owner, models.c.name, models.c.version)
        with self._db.read() as connection:
            rows = connection.execute(query.where(~models.c.published, models.c.created_at < before))
            return [(row.owner, row.name, row.version) for row in rows]

    def total_bytes(self, run_id: str, besides: str) -> int:
        """Bytes of all versions that a run has made, but for the one of the digest ``besides``."""
        query = select(func.sum(models.c.size_bytes)).where(models.c.run_id == run_id, models.c.digest != besides)
        with self._db.read() as connection:
            return int(connection.execute(query).scalar() or 0)

    def names(self, owner: str) -> list[ModelVersion]:
        """The newest version of each of an owner's models, by name."""
        newest = (
            select(models.c.name, func.max(models.c.version).label("version"))
            .where(models.c.owner == owner, models.c.published)
            .group_by(models.c.name)
        ).subquery()
        query = select(models).join(
            newest,
            (models.c.name == newest.c.name) & (models.c.version == newest.c.version) & (models.c.owner == owner),
        )
        with self._db.read() as connection:
            rows = connection.execute(query.order_by(models.c.name)).all()
            return [model_of(row, _aliases(connection, owner, row.name, row.version)) for row in rows]

    def versions(self, owner: str, name: str) -> list[ModelVersion]:
        """All versions of a model, newest first.

        Raises
        ------
        NotFound
            ``unknown_model``.
        """
        mine = (models.c.owner == owner) & (models.c.name == name) & models.c.published
        with self._db.read() as connection:
            rows = connection.execute(select(models).where(mine).order_by(models.c.version.desc())).all()
            if not rows:
                raise unknown_model(name)
            return [model_of(row, _aliases(connection, owner, name, row.version)) for row in rows]

    def of_run(self, owner: str, run_id: str) -> list[ModelVersion]:
        """The versions that a run has made, by name and newest first."""
        mine = (models.c.owner == owner) & (models.c.run_id == run_id) & models.c.published
        with self._db.read() as connection:
            query = select(models).where(mine).order_by(models.c.name, models.c.version.desc())
            rows = connection.execute(query).all()
            return [model_of(row, _aliases(connection, owner, row.name, row.version)) for row in rows]

    def set_alias(self, owner: str, name: str, alias: str, version: int | None) -> None:
        """Point an alias to a version; None removes it. Setting what is set already changes nothing."""
        this = (aliases.c.owner == owner) & (aliases.c.name == name) & (aliases.c.alias == alias)
        with self._db.write() as connection:
            connection.execute(delete(aliases).where(this))
            if version is not None:
                connection.execute(insert(aliases).values(owner=owner, name=name, alias=alias, version=version))

    def remove(self, owner: str, name: str, version: int) -> None:
        """Forget a version and the aliases that point to it."""
        with self._db.write() as connection:
            for table in (models, aliases):
                connection.execute(delete(table).where(_version(owner, name, version, table)))


def _version(owner: str, name: str, version: int, table: Table = models) -> ColumnElement[bool]:
    return and_(table.c.owner == owner, table.c.name == name, table.c.version == version)


def _next_version(connection: Connection, owner: str, name: str) -> int:
    digest = hashlib.sha256("\n".join((owner, name)).encode()).hexdigest()
    counter = f"v{digest[:31]}"
    this = counters.c.name == counter
    given = int(connection.execute(select(counters.c.value).where(this)).scalar() or 0)
    if not given:
        connection.execute(insert(counters).values(name=counter, value=0))
    connection.execute(update(counters).where(this).values(value=given + 1))
    return given + 1


def unknown_model(name: str) -> NotFound:
    """The one answer for a model that isn't there or isn't the caller's."""
    return NotFound(
        "unknown_model", f"There is no model {name[:100]!r} of yours.", hint="'atelier models ls' lists yours."
    )


def _aliases(connection: Connection, owner: str, name: str, version: int) -> list[str]:
    this = (aliases.c.owner == owner) & (aliases.c.name == name) & (aliases.c.version == version)
    return list(connection.execute(select(aliases.c.alias).where(this)).scalars())
