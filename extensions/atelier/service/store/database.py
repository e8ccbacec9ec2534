"""Connections and transactions of the store, the same over SQLite and PostgreSQL."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, func, insert, make_url, select, update
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DatabaseError, OperationalError

from atelier.errors import InternalError, RefusedInput
from atelier.service.store.locks import lock_holders
from atelier.service.store.schema import counters

_NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "beegfs", "gpfs", "sshfs"}
)

PATIENCE_S = 20.0
"""How long another one's lock is waited for: shorter than a client waits for a service that it has started."""

_LOCKED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_OUT_OF_REACH = frozenset(
    {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_FULL}
)

STIRS = "stirs"
"""The name of the counter of what `stir` counts."""

_MIGRATION = 0x61746C6572
"""PostgreSQL's number of the lock under which the schema is made."""


class Database:
    """An engine, and the two kinds of transaction that the store knows.

    ``read()`` sees one consistent state. ``write()`` takes the write lock at its begin (SQLite: ``BEGIN IMMEDIATE``; in
    PostgreSQL, the row of the change counter), so that what it read is still true when it writes. Neither may be held
    over a network call.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = _sqlite(url) if url.startswith("sqlite") else create_engine(url, pool_pre_ping=True)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self.folder = _folder_of(url) if self.is_sqlite else None
        """Where its file lies; None when it has none here."""
        self.was_left_open = self.is_sqlite and _has_log(url)
        """Whether whoever had the file last did not close it: it was killed, or the power went."""
        self.damage: InternalError | None = None
        """What is said of damage to the file, once it was met; from then on nothing is written."""
        self._turn = threading.Lock()
        self._snapshot = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        event.listen(self.engine, "handle_error", self._note_damage)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with self.engine.connect().execution_options(**self._snapshot) as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with self._writing() as connection:
            if not self.is_sqlite:
                connection.execute(select(counters.c.value).where(counters.c.name == "changes").with_for_update())
            yield connection

    @contextmanager
    def migration(self) -> Iterator[Connection]:
        """A transaction that may make the tables; one at a time."""
        with self._writing() as connection:
            if not self.is_sqlite:
                connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION)))
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        if self.damage is not None:
            raise InternalError(self.damage.code, self.damage.message, hint=self.damage.hint)
        connect = self.engine.connect
        with self._my_turn(), connect().execution_options(atelier_write=True) as connection, connection.begin():
            yield connection

    @contextmanager
    def _my_turn(self) -> Iterator[None]:
        """Wait for the other writers of this process: SQLite sleeps ever longer between its tries, and some starve."""
        is_held = self.is_sqlite and self._turn.acquire(timeout=PATIENCE_S)
        try:
            yield
        finally:
            if is_held:
                self._turn.release()

    def try_to_write(self) -> None:
        """Write what is there already: what is read may come from memory long after its disk takes nothing more."""
        with self.write() as connection:
            connection.execute(update(counters).values(value=counters.c.value))

    def look_through(self) -> None:
        """Have SQLite look at every page of its file; what is wrong is `damage` then. A second for some 100 MB."""
        if not self.is_sqlite:
            return
        with self.read() as connection:
            words = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
        if words != "ok":
            self.damage = _damaged(self.url, words)

    def _note_damage(self, context: ExceptionContext) -> None:
        problem = context.sqlalchemy_exception
        if isinstance(problem, DatabaseError) and self.damage is None:
            self.damage = database_damage(problem, self.url)

    def close(self) -> None:
        self.engine.dispose()


def next_change(connection: Connection) -> int:
    """The next number of the store-wide change counter, inside a write transaction."""
    bump = (
        update(counters)
        .where(counters.c.name == "changes")
        .values(value=counters.c.value + 1)
        .returning(counters.c.value)
    )
    return int(connection.execute(bump).scalar_one())


def stir(connection: Connection) -> None:
    """Count, inside a write transaction, a change of what waits or of what it waits for."""
    this = counters.c.name == STIRS
    if connection.execute(update(counters).where(this).values(value=counters.c.value + 1)).rowcount == 0:
        connection.execute(insert(counters).values(name=STIRS, value=1))


def _sqlite(url: str) -> Engine:
    folder = _folder_of(url)
    if folder is not None:
        refuse_network_disk(folder)
    engine = create_engine(url, connect_args={"timeout": PATIENCE_S, "check_same_thread": False})
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "begin", _begin)
    return engine


def _has_log(url: str) -> bool:
    """Whether a write-ahead log with something in it lies beside the file; who closes it last removes that."""
    try:
        return Path(f"{make_url(url).database}-wal").stat().st_size > 0
    except OSError:
        return False


def _folder_of(url: str) -> Path | None:
    path = make_url(url).database
    return Path(path).parent if path and path != ":memory:" else None


def _set_pragmas(connection: Any, record: object) -> None:
    connection.isolation_level = None
    # FULL: what was acknowledged to an agent, who then forgets it, must survive a loss of power.
    for pragma in (f"busy_timeout={PATIENCE_S * 1000:.0f}", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
    _keep_a_log(connection)


def _keep_a_log(connection: Any) -> None:
    """Have a write-ahead log; SQLite waits for nobody who makes the first one at the same time."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as problem:
            if problem.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("atelier_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def refuse_network_disk(folder: Path) -> None:
    """Refuse a folder on NFS, CIFS or FUSE: SQLite's write-ahead log is not safe there.

    Raises
    ------
    RefusedInput
        ``network_disk``, with the folder and its file system.
    """
    kind = file_system_of(folder)
    if kind in _NETWORK_FILE_SYSTEMS or kind.startswith("fuse"):
        raise RefusedInput(
            "network_disk",
            f"{folder} lies on a {kind} file system, where the database would be damaged.",
            hint="Set ATELIER_HOME to a folder on a local disk.",
        )


def file_system_of(folder: Path) -> str:
    """The kind of file system a folder lies on, as ``/proc/self/mountinfo`` has it, or ``unknown``."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    place = str(folder.resolve())
    best, kind = "", "unknown"
    for line in lines:
        left, _, right = line.partition(" - ")
        mount = left.split()[4].replace("\\040", " ")
        inside = place == mount or place.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, right.split()[0]
    return kind


def database_damage(problem: DatabaseError, url: str) -> InternalError | None:
    """Says that the file of a database is damaged, when that is what an error tells."""
    if getattr(problem.orig, "sqlite_errorcode", 0) & 0xFF not in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return None
    return _damaged(url, str(problem.orig))


def _damaged(url: str, words: str) -> InternalError:
    path = make_url(url).database
    return InternalError(
        "database_damaged",
        f"The database file {path} is damaged (SQLite: {words}).",
        hint="Stop the service; 'atelier restore FOLDER --replace' puts a backup in its place. To begin with no runs "
        f"and models instead, move the file, what begins with its name ({path}-wal …) and the blobs away.",
    )


def database_trouble(problem: DatabaseError, url: str) -> InternalError | None:
    """Says what is the matter with a database that does not do what was asked; None for what is a defect of ours."""
    code = getattr(problem.orig, "sqlite_errorcode", None)
    if code is None:
        return _unusable(problem, url) if isinstance(problem, OperationalError) else None
    if code & 0xFF in _LOCKED:
        path = Path(str(make_url(url).database))
        holders = " and ".join(lock_holders(path)) or "another program"
        return InternalError(
            "database_locked",
            f"The database {path} is locked by {holders}.",
            hint="End that program, or wait until it is done; nothing was changed, and nothing is lost.",
        )
    return database_damage(problem, url) or (_unusable(problem, url) if code & 0xFF in _OUT_OF_REACH else None)


def _unusable(problem: DatabaseError, url: str) -> InternalError:
    return InternalError(
        "database_unusable",
        f"The database {make_url(url).render_as_string(hide_password=True)} can't be used: {problem.orig}",
        hint="Check that the disk has room and is writable, then run 'atelier doctor'.",
    )


@contextmanager
def told_database_errors(url: str) -> Iterator[None]:
    """Turn a database that can't be opened, or whose file is damaged, into one clear error."""
    try:
        yield
    except DatabaseError as problem:
        raise database_trouble(problem, url) or _unusable(problem, url) from problem
