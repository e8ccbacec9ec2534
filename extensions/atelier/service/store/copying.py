"""Whole copies of SQLite databases that are in use."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from atelier.errors import InternalError
from atelier.local.durable import put_in_place

PATIENCE_S = 30.0


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy a database as it is at one moment, while others write to it; durable and whole when this returns.

    The copy is one file, without a log beside it, for its owner alone. What was at ``target`` is replaced in one step.

    Raises
    ------
    FileNotFoundError
        There is no such database.
    InternalError
        ``copy_failed``: it is damaged, locked for longer than `PATIENCE_S`, or there is no room.
    """
    if not source.is_file():
        raise FileNotFoundError(source)
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with (
            closing(sqlite3.connect(source, timeout=PATIENCE_S)) as reading,
            closing(sqlite3.connect(part)) as writing,
        ):
            reading.backup(writing)
            writing.execute("PRAGMA journal_mode=DELETE")
        put_in_place(part, target)
    except sqlite3.Error as problem:
        raise InternalError(
            "copy_failed",
            f"The database {source} could not be copied to {target}: {problem}.",
            hint="See that there is room, then try again; 'atelier doctor' looks at the database.",
        ) from problem
    finally:
        for rest in (part, Path(f"{part}-wal"), Path(f"{part}-shm")):
            rest.unlink(missing_ok=True)
