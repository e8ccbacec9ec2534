"""Brings a database to the schema of this code, by Alembic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, make_url
from sqlalchemy.exc import DatabaseError

from atelier.errors import AtelierError, Conflict, InternalError
from atelier.service.store.copying import copy_sqlite
from atelier.service.store.database import Database, database_damage

SCRIPTS = Path(__file__).parent / "migrations"


def migrate(database: Database, on_new: Callable[[], None] = lambda: None, *, scripts: Path = SCRIPTS) -> None:
    """Apply the migrations that a database lacks, all in one transaction.

    A SQLite file of an earlier schema is copied before, to ``<file>.before-<schema>`` beside it. ``on_new`` is called
    before the tables of a new database are made; what it raises leaves none. ``scripts`` is Alembic's folder.

    Raises
    ------
    Conflict
        ``newer_database``: it was written by a newer Atelier, whose migrations this one doesn't have.
    InternalError
        ``migration_failed``: nothing of it was done.
    """
    config = Config()
    config.set_main_option("script_location", str(scripts))
    known = ScriptDirectory.from_config(config)
    head = known.get_current_head()
    with database.migration() as connection:
        revision = MigrationContext.configure(connection).get_current_revision()
        if revision == head:
            return
        _refuse_newer(known, revision, database.url)
        if revision is None:
            on_new()
        elif database.folder is not None:
            path = Path(str(make_url(database.url).database))
            copy_sqlite(path, path.with_name(f"{path.name}.before-{head}"))
        _upgrade(config, connection, f"{revision or 'none'} to {head}", url=database.url)


def _upgrade(config: Config, connection: Connection, words: str, *, url: str) -> None:
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except Exception as problem:
        told = _failure(problem, words, url)
        if told is None:
            raise
        raise told from problem


def _failure(problem: Exception, words: str, url: str) -> AtelierError | None:
    """What to say of a migration that failed; None when the problem says it better."""
    if isinstance(problem, AtelierError) or (isinstance(problem, DatabaseError) and database_damage(problem, url)):
        return None
    cause = str(problem.orig if isinstance(problem, DatabaseError) else problem).partition("\n")[0]
    return InternalError(
        "migration_failed",
        f"The database {_shown(url)} could not be brought from schema {words}: {cause}. It is as it was.",
        hint="See that its disk has room, then start again. The version that was here before still opens it.",
    )


def _refuse_newer(scripts: ScriptDirectory, revision: str | None, url: str) -> None:
    known = {script.revision for script in scripts.walk_revisions()}
    if revision is not None and revision not in known:
        raise Conflict(
            "newer_database",
            f"The database {_shown(url)} has schema {revision}, which this version of Atelier doesn't know.",
            hint="Install the newer Atelier again, or give another ATELIER_HOME.",
        )


def _shown(url: str) -> str:
    return make_url(url).render_as_string(hide_password=True).removeprefix("sqlite:///")
