"""Small plain files in a folder whose names the code in a run can change: read and replaced without waiting for it.

A link is never followed, a pipe never waited for, and no more is read than was asked for.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path

from atelier.local.durable import put_in_place

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def open_regular(path: Path) -> io.BufferedReader:
    """A file that a run may have written, to be read: never through a link, and never what is no plain file.

    Raises
    ------
    OSError
        It is a link, a folder, a pipe, a socket or a device.
    """
    descriptor = os.open(path, _READ)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no plain file", str(path))
    return os.fdopen(descriptor, "rb")


def read_small(path: Path, most_bytes: int) -> bytes:
    """All bytes of a plain file.

    Raises
    ------
    OSError
        It is none, or has more than ``most_bytes``.
    """
    with open_regular(path) as stream:
        data = stream.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise OSError(errno.EFBIG, f"it has more than {most_bytes} bytes", str(path))
    return data


def write_small(path: Path, data: bytes) -> None:
    """Replace a file in one step; after a loss of power it may be the one before."""
    os.replace(_part_of(path, data), path)


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file in one step, durable when this returns."""
    put_in_place(_part_of(path, data, is_synced=True), path)


def _part_of(path: Path, data: bytes, *, is_synced: bool = False) -> Path:
    """What will have a file's name, in a new file beside it: what lay there under its name goes."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, _NEW, 0o600), "wb") as stream:
        stream.write(data)
        stream.flush()
        if is_synced:
            os.fsync(stream.fileno())
    return part
