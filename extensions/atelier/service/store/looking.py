"""A SQLite file that is looked at and never changed, whether a service has it open or not."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event

from atelier.service.store.database import Database
from atelier.service.store.migrate import SCRIPTS

PATIENCE_S = 5.0


class LookedAt(Database):
    """A `Database` over a file that must be there; to write to it fails."""

    def __init__(self, path: Path) -> None:
        super().__init__("sqlite://")
        self.url = f"sqlite:///{path}"
        address = f"file:{quote(str(path))}?mode=ro"
        self.engine = create_engine("sqlite://", creator=lambda: _connect(address))
        event.listen(self.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))


def _connect(address: str) -> Any:
    return sqlite3.connect(address, uri=True, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False)


def schema_of(database: Database) -> tuple[str | None, str | None]:
    """The schema that a database has, and the one of this code."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    with database.read() as connection:
        now = MigrationContext.configure(connection).get_current_revision()
    return now, ScriptDirectory.from_config(config).get_current_head()
