"""A store that holds many runs, ended or waiting: the rows of one that it has made itself, again and again."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Table, func, insert, select, update

from atelier.service.store import Store
from atelier.service.store.schema import attempts, counters, curves, runs, transitions
from atelier.testing.samples import finished, queued

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


def crowd(store: Store, count: int, *, owners: int, owner: str = "owner") -> list[str]:
    """Add waiting runs of ``owner0``, ``owner1`` and so on in turns, a millisecond apart; their ids.

    The machine of each has two accelerators, so that nothing can be claimed where there are none.
    """
    pattern = queued(store, f"{owner}0", gpus=2)
    with store.database.write() as connection:
        (row,), lines = _rows(connection, runs, pattern), _rows(connection, transitions, pattern)
        change, begin = row["change"], row["turn_at"] - timedelta(milliseconds=count)
    for first in range(0, count, AT_ONCE):
        copies, moves = [], []
        for n in range(first, min(count, first + AT_ONCE)):
            moment = begin + timedelta(milliseconds=n)
            times = dict.fromkeys(("created_at", "queued_at", "turn_at"), moment)
            copies.append(row | times | {"id": run_id_of(n), "owner": f"{owner}{n % owners}", "change": change + 1 + n})
            moves += [{**line, "run_id": run_id_of(n), "at": moment} for line in lines]
        for line in moves:
            line.pop("seq")
        with store.database.write() as connection:
            connection.execute(insert(runs), copies)
            connection.execute(insert(transitions), moves)
    with store.database.write() as connection:
        connection.execute(update(counters).where(counters.c.name == "changes").values(value=change + count))
    return [run_id_of(n) for n in range(count)]


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
