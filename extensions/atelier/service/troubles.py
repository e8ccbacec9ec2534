"""Troubles of the machine that a user can do something about, as clear errors: a full disk, a damaged database."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy.exc import DatabaseError

from atelier.errors import AtelierError, InternalError
from atelier.local.disk import is_full
from atelier.quantities import format_bytes
from atelier.service.store import Store, is_disk_full
from atelier.service.store.database import database_trouble
from atelier.storage import BlobStore, FilesystemBlobs

FULL_BYTES = 256 << 10
"""A disk with less free room than this is told as full."""


def trouble_of(problem: BaseException, store: Store, blobs: BlobStore) -> AtelierError | None:
    """The error to answer instead of a defect; None for what is one."""
    if is_disk_full(problem):
        return disk_full(store, blobs) or _unknown_full(problem)
    return database_trouble(problem, store.database.url) if isinstance(problem, DatabaseError) else None


def disk_full(store: Store, blobs: BlobStore) -> AtelierError | None:
    """Says which of the service's own disks is full; None when none is."""
    for folder in _folders(store, blobs):
        free = shutil.disk_usage(folder).free
        if free < FULL_BYTES:
            return _full(f"The disk of the run service is full: {format_bytes(free)} are free at {folder}.")
    return None


def home_trouble(problem: OSError, home: Path) -> AtelierError | None:
    """Says why a service can't begin over a home; None for what is a defect."""
    place = problem.filename if isinstance(problem.filename, str) else home
    if is_full(problem):
        return _full(f"The disk of {place} is full.")
    if problem.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        why = "it lies on a read-only disk" if problem.errno == errno.EROFS else "permission denied"
        hint = "Make it writable, or set ATELIER_HOME to a folder of yours."
        return InternalError("home_not_writable", f"{place} can't be written: {why}.", hint=hint)
    return None


def _folders(store: Store, blobs: BlobStore) -> Iterable[Path]:
    places = [store.database.folder, blobs.root if isinstance(blobs, FilesystemBlobs) else None]
    return [folder for folder in places if folder is not None and folder.is_dir()]


def _unknown_full(problem: BaseException) -> AtelierError:
    name = getattr(problem, "filename", None)
    return _full(f"A disk of the run service is full{f' at {name}' if isinstance(name, str) else ''}.")


def _full(message: str) -> AtelierError:
    hint = "Make room there: remove ended runs ('atelier rm'), cancel the one that fills it, or delete other files."
    return InternalError("disk_full", message, hint=hint)
