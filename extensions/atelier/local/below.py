"""Folders and files below a root, reached one name at a time, without following a link.

Each name is opened below the folder before it: what is swapped for a link meanwhile is an error, never a way out.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from atelier.crash_points import crash_point

PART = ".part-"
"""Names that begin so are not finished."""

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC  # a folder above may be one that can be passed, not listed
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def held_folder(root: Path, names: Sequence[str]) -> Iterator[int]:
    """A descriptor of the folder that the names lead to; the root itself may be a link.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        A name is not there, or is no folder; a link is none.
    """
    held = os.open(root, _FOLDER)
    try:
        for name in names:
            held = _step(held, name)
        yield held
    finally:
        os.close(held)


@contextlib.contextmanager
def made_folder(root: Path, names: Sequence[str]) -> Iterator[int]:
    """The same; private folders that are missing are made, durably, and a link in the way of one is removed."""
    held = os.open(root, _FOLDER)
    try:
        for name in names:
            try:
                held = _step(held, name)
            except (FileNotFoundError, NotADirectoryError):
                _make(held, name)
                held = _step(held, name)
        yield held
    finally:
        os.close(held)


def open_file(folder: int, name: str) -> BinaryIO:
    """A plain file of a folder that is held, to be read.

    Raises
    ------
    FileNotFoundError
        It is not there, or is a link, a folder, a pipe, a socket or a device.
    """
    try:
        descriptor = os.open(name, _FILE, dir_fd=folder)
    except OSError as problem:
        if problem.errno in {errno.ELOOP, errno.ENXIO}:  # a link, or a socket
            raise FileNotFoundError(errno.ENOENT, "it is no plain file", name) from problem
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, "it is no plain file", name)
    return os.fdopen(descriptor, "rb")


@contextlib.contextmanager
def new_part(folder: int) -> Iterator[str]:
    """A name for what is not finished in a folder that is held; nothing has it afterwards."""
    part = f"{PART}{secrets.token_hex(8)}"
    try:
        yield part
    finally:
        with contextlib.suppress(FileNotFoundError):  # it is in its place; of two links to one file both stay
            os.unlink(part, dir_fd=folder)


@contextlib.contextmanager
def replacement(folder: int, name: str) -> Iterator[BinaryIO]:
    """A stream whose content has a name in a folder that is held, whole and durable, when the block ends well."""
    crash_point("storage.replace.before")
    with new_part(folder) as part:
        with os.fdopen(os.open(part, _NEW, 0o600, dir_fd=folder), "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        crash_point("storage.replace.written")
        put_in_place(folder, part, name)
        crash_point("storage.replace.after")


def put_in_place(folder: int, part: str, name: str) -> None:
    """Rename a synced file within a folder that is held; its new name is durable when this returns."""
    os.replace(part, name, src_dir_fd=folder, dst_dir_fd=folder)
    sync_names(folder)


def sync_names(folder: int) -> None:
    """Make the names in a folder that is held durable."""
    descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _step(held: int, name: str) -> int:
    """The folder of that name, in the place of the one that was held."""
    try:
        inner = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=held)
    except OSError as problem:
        if problem.errno == errno.ELOOP:
            raise NotADirectoryError(errno.ENOTDIR, "it is a link", name) from problem
        raise
    os.close(held)
    return inner


def _make(held: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISLNK(os.stat(name, dir_fd=held, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=held)
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=held)
    sync_names(held)
