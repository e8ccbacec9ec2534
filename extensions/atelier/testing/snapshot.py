"""What a home holds at one moment: the rows of its store, its blobs, and the processes of its attempts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Row, Table, select

from atelier.local.attempts import ATTEMPT_KEY, ATTEMPT_PLACE
from atelier.local.cgroups import NOTE, group_name, noted_group
from atelier.records import AttemptState, RunState
from atelier.service.store.database import Database
from atelier.service.store.runs import RunStore
from atelier.service.store.schema import (
    artifacts,
    attempts,
    checkpoints,
    leases,
    models,
    removed_runs,
    runs,
    transitions,
)
from atelier.service.store.streams import StreamStore
from atelier.settings import load_settings
from atelier.storage import BlobStore, open_blobs
from atelier.storage.paths import RunPaths

MARK, PLACE = (f"{name}=".encode() for name in (ATTEMPT_KEY, ATTEMPT_PLACE))
TABLES = (runs, attempts, transitions, leases, artifacts, checkpoints, models, removed_runs)


class File(NamedTuple):
    """A blob that a row tells of."""

    key: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Snapshot:
    """Reads a home; it changes nothing, and needs no service.

    Parameters
    ----------
    home : Path
        The ``ATELIER_HOME``.
    database : Database
        Its database.
    blobs : BlobStore
        Its blobs.
    """

    home: Path
    database: Database
    blobs: BlobStore

    @classmethod
    def of(cls, home: Path) -> Snapshot:
        """The one of a home with its own settings."""
        settings = load_settings(home / "atelier.yaml")
        url = settings.database or f"sqlite:///{home / 'db' / 'atelier.sqlite'}"
        return cls(home, Database(url), open_blobs(settings.blobs or (home / "blobs").as_uri()))

    @cached_property
    def tables(self) -> dict[str, list[Row[Any]]]:
        """All rows of `TABLES`, as one transaction sees them."""
        with self.database.read() as connection:
            return {table.name: _rows_of(connection, table) for table in TABLES}

    @property
    def runs(self) -> list[Row[Any]]:
        return self.tables["runs"]

    @property
    def final_runs(self) -> list[Row[Any]]:
        return [row for row in self.runs if RunState(row.state).is_final]

    def attempts(self, run_id: str) -> list[Row[Any]]:
        """A run's attempts by number."""
        return sorted((row for row in self.tables["attempts"] if row.run_id == run_id), key=lambda row: int(row.n))

    @cached_property
    def ended_attempts(self) -> set[tuple[str, int]]:
        """Attempts that are over, also those of removed runs that are still named somewhere (number 0: all of them)."""
        ended = {(row.run_id, row.n) for row in self.tables["attempts"] if AttemptState(row.state).is_final}
        return ended | {(row.id, 0) for row in self.tables["removed_runs"]}

    def is_over(self, run_id: str, n: int) -> bool:
        """Whether an attempt has ended, or went with its run."""
        return bool({(run_id, n), (run_id, 0)} & self.ended_attempts)

    @cached_property
    def store(self) -> RunStore:
        return RunStore(self.database)

    @cached_property
    def streams(self) -> StreamStore:
        return StreamStore(self.database)

    @cached_property
    def keys(self) -> dict[str, None]:
        """All blobs of runs and models, sorted."""
        return dict.fromkeys(key for kind in ("models", "runs") for key in self.blobs.keys(kind))

    def keys_below(self, prefix: str) -> list[str]:
        """Those below a folder."""
        return [key for key in self.keys if key.startswith(f"{prefix}/")]

    def sha256(self, key: str) -> str:
        """The digest of a blob's bytes."""
        digest = hashlib.sha256()
        with self.blobs.open(key) as stream:
            while part := stream.read(1 << 20):
                digest.update(part)
        return digest.hexdigest()

    def paths(self, run_id: str) -> RunPaths:
        return RunPaths(run_id)

    def processes(self) -> Iterator[tuple[int, str, int]]:
        """Living processes that bear the mark of an attempt of this home: process id, run, number."""
        mine = f"{self.home.resolve()}/".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                entries = (folder / "environ").read_bytes().split(b"\0")
            except OSError:  # gone meanwhile, or somebody else's
                continue
            places = [entry.removeprefix(PLACE) for entry in entries if entry.startswith(PLACE)]
            if any(not place.startswith(mine) for place in places):  # a home that this one was restored from
                continue
            for entry in entries:
                run_id, _, n = entry.removeprefix(MARK).decode(errors="replace").partition("/")
                if entry.startswith(MARK) and n.isdecimal():
                    yield int(folder.name), run_id, int(n)

    def grouped(self) -> Iterator[tuple[int, str, int]]:
        """Processes of the control groups that attempts have noted, which may bear no mark: process id, run, number."""
        for path, run_id, n in self.folders():
            group = noted_group(path / NOTE, group_name(path))
            yield from ((pid, run_id, n) for pid in sorted(group.members() if group else ()))

    def folders(self) -> Iterator[tuple[Path, str, int]]:
        """Folders of attempts on this machine: place, run, number."""
        for path in sorted((self.home / "run/attempts").glob("r-*/*")):
            if path.name.isdecimal():
                yield path, path.parent.name, int(path.name)


def _rows_of(connection: Any, table: Table) -> list[Row[Any]]:
    return list(connection.execute(select(table).order_by(*table.primary_key.columns)))
