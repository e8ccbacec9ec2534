"""Makes a backup of a home while its service works and runs are written.

The database is copied as it is at one moment, then the blobs that this copy tells of are taken. What may go at any
moment is opened first, which keeps it. One that has gone in between nevertheless is told of by no later copy: another
one is made, and only what is new is taken for it; of the last one what went is taken out.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

from atelier.errors import Conflict, NotFound, RefusedInput
from atelier.quantities import utcnow
from atelier.service.backups import places as at
from atelier.service.backups.objects import MANIFEST, PIECE_BYTES, Content, Manifest, Objects
from atelier.service.backups.places import Places
from atelier.service.backups.restoring import refuse_unfinished
from atelier.service.backups.settling import leave_out
from atelier.service.backups.wanted import Wanted, WantedStream, wanted
from atelier.service.chunks import Chunks
from atelier.service.store.copying import copy_sqlite
from atelier.service.store.database import Database
from atelier.service.store.schema import runs
from atelier.storage import BlobStore, FilesystemBlobs

MOST_COPIES = 6
MOST_HELD = 300
"""Files that are open at once; a process has 1024 where nobody has said more."""


@dataclass(frozen=True)
class Made:
    """What a backup has come to: its files and bytes, what of them is new, and what the platform itself lacked."""

    files: int
    size_bytes: int
    new_bytes: int
    missing: list[str]


def back_up(home: Path, folder: Path) -> Made:
    """Bring a backup of a home up to date; a new one where the folder is empty or not there.

    Parameters
    ----------
    home : Path
        The ``ATELIER_HOME``; whether its service runs does not matter.
    folder : Path
        Outside of the home. Files that the file system can share are hard links.

    Raises
    ------
    Conflict
        ``database_elsewhere``: the database is no SQLite file. ``backup_running``: another one is made there.
        ``restore_unfinished``: the home is half restored.
    NotFound
        ``nothing_to_back_up``: the home has no database.
    RefusedInput
        ``bad_place``: within the home, or a folder with something else in it.
    """
    refuse_unfinished(home)
    places = Places.of(home)
    if not places.database.is_file():
        raise NotFound("nothing_to_back_up", f"There is no database {places.database}.", hint="Set ATELIER_HOME.")
    _refuse_place(home, folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(folder):
        known = Manifest.read(folder).files if (folder / MANIFEST).exists() else {}
        making = _Making(places, folder, known)
        making.objects.prune({content.sha256 for content in known.values()})
        try:
            return making.make()
        finally:
            shutil.rmtree(making.scratch, ignore_errors=True)


def _refuse_place(home: Path, folder: Path) -> None:
    place = folder.resolve()
    hint = "Name an empty folder, or one that holds a backup, best on another disk."
    if place.is_relative_to(home.resolve()) or home.resolve().is_relative_to(place):
        raise RefusedInput("bad_place", f"A backup of {home} can't lie at {folder}.", hint=hint)
    if folder.exists() and not (folder / MANIFEST).exists():
        strange = [path.name for path in folder.iterdir() if path.name not in {"objects", ".lock", ".scratch"}]
        if strange:
            raise RefusedInput("bad_place", f"{folder} holds something else ({strange[0][:100]}).", hint=hint)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            hint = "Wait for it, or name another folder."
            raise Conflict("backup_running", f"Another backup is being made in {folder}.", hint=hint) from None
        yield


@contextlib.contextmanager
def _told_by(copy: Path) -> Iterator[list[Wanted | WantedStream]]:
    """What a copied database tells of."""
    database = Database(f"sqlite:///{copy}")
    try:
        yield list(wanted(database))
    finally:
        database.close()


@dataclass
class _Making:
    """One backup as it is made. ``known`` is what the one before has, ``taken`` what this one has so far."""

    places: Places
    folder: Path
    known: dict[str, Content]
    objects: Objects = field(init=False)
    blobs: BlobStore = field(init=False)
    files: dict[str, Content] = field(default_factory=dict)
    taken: dict[str, Content] = field(default_factory=dict)
    held: dict[str, BinaryIO] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.objects, self.blobs = Objects(self.folder), self.places.open_blobs()
        self.scratch.mkdir(mode=0o700, exist_ok=True)

    @property
    def scratch(self) -> Path:
        return self.folder / ".scratch"

    def make(self) -> Made:
        before = {content.sha256 for content in self.known.values()}
        missing = self._take_all()
        self._take_others()
        fresh = {content.sha256: content.size_bytes for content in self.files.values()}
        os.sync()  # all new files at once, before the one that names them
        Manifest(utcnow().isoformat(), version("jupyterhub-atelier"), self.files, missing).write(self.folder)
        self.objects.prune(set(fresh))
        new_bytes = sum(size for sha256, size in fresh.items() if sha256 not in before)
        return Made(len(self.files), sum(each.size_bytes for each in self.files.values()), new_bytes, missing)

    def _take_all(self) -> list[str]:
        """Take the database and its blobs; the blobs that two copies, one after the other, told of and nobody has."""
        copy, lacked = self.scratch / "atelier.sqlite", set[Wanted | WantedStream]()
        for _ in range(MOST_COPIES):
            copy_sqlite(self.places.database, copy)
            missing = self._take_told(copy)
            if lacked.issuperset(missing):
                break
            lacked = set(missing)
        else:
            missing = self._leave_out(copy, missing)
        copy_sqlite(copy, self.scratch / "whole.sqlite")
        with (self.scratch / "whole.sqlite").open("rb") as whole:
            self.files[at.DATABASE] = self.objects.link(whole)
        return [each.key for each in missing]

    def _take_told(self, copy: Path) -> list[Wanted | WantedStream]:
        """Take the blobs that a copy tells of; those that are not there."""
        self.files = {}
        with _told_by(copy) as told, contextlib.ExitStack() as held:
            passing = [each.key for each in told if isinstance(each, Wanted) and each.is_passing]
            self.held = {}
            if isinstance(self.blobs, FilesystemBlobs):
                for key in passing[:MOST_HELD]:
                    with contextlib.suppress(FileNotFoundError):
                        self.held[key] = held.enter_context(self.blobs.open(key))
            return [each for each in told if not self._take(each)]

    def _leave_out(self, copy: Path, missing: list[Wanted | WantedStream]) -> list[Wanted | WantedStream]:
        """Take out of a copy what went while its blobs were taken; what is missing nevertheless."""
        newer = self.scratch / "newer.sqlite"
        copy_sqlite(self.places.database, newer)
        with _told_by(newer) as told:
            still = {each.row if each.row.table is runs else each.key for each in told}
        database = Database(f"sqlite:///{copy}")
        try:
            gone = {each.row for each in missing if (each.row if each.row.table is runs else each.key) not in still}
            leave_out(database, gone)
        finally:
            database.close()
        with _told_by(copy) as told:
            kept = {f"{at.BLOBS}/{each.key}" for each in told}
        self.files = {path: content for path, content in self.files.items() if path in kept}
        return [each for each in missing if f"{at.BLOBS}/{each.key}" in kept]

    def _take(self, each: Wanted | WantedStream) -> bool:
        """Take a blob; False when it is needed and not there as it is told."""
        if isinstance(each, WantedStream):
            return self._take_stream(each)
        path = f"{at.BLOBS}/{each.key}"
        if each.sha256 is not None and each.size_bytes is not None:
            told = Content(each.sha256, each.size_bytes)
            if self.objects.has(told):  # under whichever name it was taken before
                self.files[path] = told
                return True
        try:
            content = self._content(each.key)
        except FileNotFoundError:
            return not each.is_needed
        if each.sha256 not in {None, content.sha256}:
            return not each.is_needed
        self.files[path] = content
        return True

    def _content(self, key: str) -> Content:
        """A blob as it is now; one that is as it was when it was taken is not read again."""
        if not isinstance(self.blobs, FilesystemBlobs):
            with self.blobs.open(key) as stream:
                return self.objects.put(iter(lambda: stream.read(PIECE_BYTES), b""))
        known = self.taken.get(key) or self.known.get(f"{at.BLOBS}/{key}")
        with self.held.pop(key, None) or self.blobs.open(key) as reader:
            now = os.fstat(reader.fileno())
            is_same = known is not None and (known.size_bytes, known.mtime_ns) == (now.st_size, now.st_mtime_ns)
            if known is None or not is_same or not self.objects.has(known):
                known = self.objects.link(reader)
        self.taken[key] = known
        return known

    def _take_stream(self, each: WantedStream) -> bool:
        """Take the acknowledged bytes of a stream: the one object of one that has ended, else a copy in one piece."""
        key = each.stream
        with contextlib.suppress(FileNotFoundError):
            if each.target == key.whole and self.blobs.size_bytes(key.whole) == each.size_bytes:
                self.files[f"{at.BLOBS}/{each.target}"] = self._content(key.whole)
                return True
        if each.size_bytes:
            content = self.objects.put(Chunks(self.blobs).pieces(key, 0, each.size_bytes))
            self.files[f"{at.BLOBS}/{each.target}"] = content
            return content.size_bytes == each.size_bytes
        return True

    def _take_others(self) -> None:
        """What else of a home can't be made again: the hub's users and groups, secrets, settings, ports."""
        home = self.places.home
        with contextlib.suppress(FileNotFoundError):
            copy_sqlite(home / at.HUB_DATABASE, self.scratch / "hub.sqlite")
            with (self.scratch / "hub.sqlite").open("rb") as hub:
                self.files[at.HUB_DATABASE] = self.objects.link(hub)
        kept = [home / name for name in at.PLAIN_FILES]
        secret = sorted((home / at.SECRETS).iterdir()) if (home / at.SECRETS).is_dir() else []
        for path in [*kept, *secret]:
            if path.is_file():
                self.files[path.relative_to(home).as_posix()] = self.objects.put([path.read_bytes()])
