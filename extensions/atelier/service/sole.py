"""One service at a time over one PostgreSQL: a lock in the database itself, held for as long as the service lives.

SQLite needs none: its file lies in the home, which has a lock of its own.

The lock belongs to a connection, and PostgreSQL lets go of it with that. A service whose connection is gone decides
nothing until it has the lock again, on a new one: no pass over runs is begun, while agents go on and wait. When another
service has it by then, this one ends, for what it would decide is that one's to decide. It doesn't end before: a
PostgreSQL that is only restarted would else take every service over it along.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, Engine, NullPool, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError

from atelier.errors import Conflict
from atelier.service.store.database import told_database_errors

log = logging.getLogger("atelier.service")

HANDOVER_S = 5.0
"""How long one that was killed is waited for: PostgreSQL sees its end a moment later."""

LOOK_S = 1.0
ANSWER_S = 10

_LOCK = 0x61746C7372
"""PostgreSQL's number of the lock."""

_WHO = text(
    "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid WHERE l.locktype = 'advisory'"
    " AND l.granted AND l.classid = :high AND l.objid = :low AND l.objsubid = 1"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


@dataclass
class Sole:
    """The lock of one service. Thread-safe.

    ``name`` is what another service is told of its holder.
    """

    url: str
    name: str
    taken: Conflict | None = None
    """What is to be said when another service has it; from then on it is never held again."""
    _engine: Engine = field(init=False)
    _connection: Connection | None = None
    _is_loss_told: bool = False
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        told = {"application_name": self.name.encode()[:63].decode(errors="ignore")}
        patience = {"connect_timeout": ANSWER_S, "tcp_user_timeout": ANSWER_S * 1000}
        self._engine = create_engine(
            self.url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args={**told, **patience}
        )

    def take(self) -> None:
        """Take it, or wait a little until another one has let go of it.

        Raises
        ------
        Conflict
            ``database_in_use``: another service works over this database.
        """
        deadline = time.monotonic() + HANDOVER_S
        with self._turn:
            while not self._took():
                if time.monotonic() > deadline:
                    raise self.taken or self._in_use("another service")
                time.sleep(0.2)
            self.taken = None

    def is_held(self) -> bool:
        """Whether it is held; one that was lost is taken again where nobody else has it."""
        with self._turn:
            if self.taken is not None:
                return False
            try:
                if self._connection is not None:
                    self._connection.execute(text("SELECT 1"))
                    return True
                return self._took()
            except DBAPIError as problem:
                self._drop()
                if not self._is_loss_told:
                    self._is_loss_told = True
                    log.error("The database does not answer; nothing is decided until it does: %s", problem.orig)
                return False

    def _took(self) -> bool:
        connection = self._engine.connect()
        if connection.execute(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": _LOCK}).scalar():
            self._connection, self._is_loss_told = connection, False
            return True
        number = {"high": _LOCK >> 32, "low": _LOCK & 0xFFFFFFFF}
        self.taken = self._in_use(str(connection.execute(_WHO, number).scalar() or "another service"))
        connection.close()
        return False

    def _in_use(self, who: str) -> Conflict:
        return Conflict(
            "database_in_use",
            f"The database {make_url(self.url).render_as_string(hide_password=True)} is used by {who}.",
            hint="Stop that service, or give this one a database of its own.",
        )

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        """Let go of it."""
        with self._turn:
            self._drop()

    async def lost(self) -> Conflict:
        """Look after it until another service has it; what is to be said then."""
        while self.taken is None:
            await asyncio.sleep(LOOK_S)
            await asyncio.to_thread(self.is_held)
        return self.taken


@contextmanager
def sole_user(url: str, home: Path) -> Iterator[Sole | None]:
    """Have a database for one service alone; None where its file lies in the home.

    Raises
    ------
    Conflict
        ``database_in_use``: another service works over it.
    InternalError
        ``database_unusable``: it does not answer.
    """
    if not url.startswith("postgresql"):
        yield None
        return
    sole = Sole(url, f"process {os.getpid()} on {socket.gethostname()[:20]} over {home}")
    with told_database_errors(url):
        sole.take()
    try:
        yield sole
    finally:
        sole.close()
