"""Brings a database to the schema of this code, by Alembic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from atelier.errors import Conflict
from atelier.service.store.database import Database

_SCRIPTS = Path(__file__).parent / "migrations"


def migrate(database: Database, on_new: Callable[[], None] = lambda: None) -> None:
    """Apply the migrations that a database lacks, all in one transaction.

    ``on_new`` is called before the tables of a new database are made; what it raises leaves none.

    Raises
    ------
    Conflict
        ``newer_database``: it was written by a newer Atelier, whose migrations this one doesn't have.
    """
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    scripts = ScriptDirectory.from_config(config)
    with database.migration() as connection:
        revision = MigrationContext.configure(connection).get_current_revision()
        if revision == scripts.get_current_head():
            return
        _refuse_newer(scripts, revision, database.url)
        if revision is None:
            on_new()
        _upgrade(config, connection)


def _upgrade(config: Config, connection: Connection) -> None:
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _refuse_newer(scripts: ScriptDirectory, revision: str | None, url: str) -> None:
    known = {script.revision for script in scripts.walk_revisions()}
    if revision is not None and revision not in known:
        raise Conflict(
            "newer_database",
            f"The database {url} has schema {revision}, which this version of Atelier doesn't know.",
            hint="Install the newer Atelier again, or give another ATELIER_HOME.",
        )
