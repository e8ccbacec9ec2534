"""A store that holds many ended runs: the rows of one that the store has made itself, again and again."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Table, func, insert, select, update

from atelier.service.store import Store
from atelier.service.store.schema import attempts, counters, curves, runs, transitions
from atelier.testing.samples import finished

STATES = ("succeeded", "succeeded", "succeeded", "failed", "cancelled", "timed_out")
AT_ONCE = 2000
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"


def fill(store: Store, owner: str, count: int) -> None:
    """Add ended runs of an owner, the last one the newest, a minute apart."""
    pattern = finished(store, owner)
    with store.database.write() as connection:
        rows = {table: _rows(connection, table, pattern) for table in (runs, attempts, transitions, curves)}
        change = int(connection.execute(select(func.max(runs.c.change))).scalar_one())
    for first in range(0, count, AT_ONCE):
        numbers = range(first, min(count, first + AT_ONCE))
        with store.database.write() as connection:
            for table, patterns in rows.items():
                copies = [_copy(table, row, n, count, change + 1 + n) for n in numbers for row in patterns]
                if copies:
                    connection.execute(insert(table), copies)
    with store.database.write() as connection:
        connection.execute(update(counters).where(counters.c.value == change).values(value=change + count))


def run_id_of(n: int) -> str:
    """The id of the nth run that was added."""
    digest = hashlib.sha256(str(n).encode()).digest()
    return "r-" + "".join(_LETTERS[byte % 32] for byte in digest[:10])


def _rows(connection: Connection, table: Table, run_id: str) -> list[dict[str, Any]]:
    key = table.c.id if table is runs else table.c.run_id
    return [dict(row._mapping) for row in connection.execute(select(table).where(key == run_id))]


def _copy(table: Table, row: dict[str, Any], n: int, count: int, change: int) -> dict[str, Any]:
    """The row of another run; moments move by a minute a run, what is unique becomes so."""
    back = timedelta(minutes=count - n)
    moved = {name: value - back if hasattr(value, "tzinfo") and value else value for name, value in row.items()}
    if table is runs:
        return moved | {"id": run_id_of(n), "state": STATES[n % len(STATES)], "change": change, "recorded": True}
    if table is attempts:
        moved["token_hash"] = hashlib.sha256(f"{n}/{row['n']}".encode()).hexdigest()
    moved.pop("seq", None)
    return moved | {"run_id": run_id_of(n)}
