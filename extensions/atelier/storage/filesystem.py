"""Blobs in a folder of a local disk."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from atelier.local.durable import make_folders, put_in_place
from atelier.storage.base import BlobStore, checked_key

PART = ".part-"
"""Names that begin so are not finished; an agent's `store` uses the same."""


class FilesystemBlobs(BlobStore):
    """A `BlobStore` below one folder; a write goes to a temporary file, is synced, and is renamed into place.

    What was written is there after a loss of power too: the folders that have its name are synced as well.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, key: str) -> Path:
        """The file of a key."""
        return self.root / checked_key(key)

    def write(self, key: str, data: bytes) -> None:
        self._replace(key, lambda stream: stream.write(data))

    def put_file(self, key: str, source: Path) -> None:
        with _only_files(source.name), source.open("rb") as reader:
            self._replace(key, lambda stream: shutil.copyfileobj(reader, stream, 1 << 20))

    def _replace(self, key: str, fill: Callable[[BinaryIO], object]) -> None:
        target = self.path(key)
        make_folders(target.parent)
        descriptor, name = tempfile.mkstemp(prefix=PART, dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                fill(stream)
                stream.flush()
                os.fsync(stream.fileno())
            put_in_place(Path(name), target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def open(self, key: str) -> BinaryIO:
        with _only_files(key):
            return self.path(key).open("rb")

    def size_bytes(self, key: str) -> int:
        return self._status(key).st_size

    def _status(self, key: str) -> os.stat_result:
        with _only_files(key):
            status = self.path(key).stat()
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError(key)
        return status

    def exists(self, key: str) -> bool:
        return self.path(key).is_file()

    def keys(self, prefix: str) -> Iterator[str]:
        found = (
            (Path(place) / name).relative_to(self.root).as_posix()
            for place, _, files in os.walk(self.path(prefix))
            for name in files
            if not name.startswith(PART)
        )
        yield from sorted(found)

    def copy(self, source: str, target: str) -> None:
        """One file under both keys: blobs are replaced, never written into, so neither sees the other change."""
        path = self.path(target)
        make_folders(path.parent)
        part = path.with_name(f".part-{secrets.token_hex(8)}")
        try:
            os.link(self.path(source), part)
        except FileNotFoundError:
            raise
        except OSError:  # a file system without hard links, or a file with too many
            self.put_file(target, self.path(source))
            return
        put_in_place(part, path)
        part.unlink(missing_ok=True)  # renaming one link of a file to another leaves both

    def delete(self, prefix: str) -> None:
        path = self.path(prefix)
        while path.is_dir():
            with contextlib.suppress(FileNotFoundError):  # another one removes it too
                shutil.rmtree(path)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()

    def age_s(self, key: str) -> float:
        return time.time() - self._status(key).st_mtime

    def expire(self, prefix: str, age_s: float) -> int:
        """The same; what a killed writer has left goes too."""
        removed = super().expire(prefix, age_s)
        for part in list(self.path(prefix).rglob(f"{PART}*")):
            with contextlib.suppress(FileNotFoundError):  # its writer was only slow
                if time.time() - part.stat().st_mtime > age_s:
                    part.unlink()
        return removed

    def read_url(self, key: str, *, lifetime_s: float = 3600.0) -> str:
        return self.path(key).as_uri()

    def write_url(self, key: str, *, lifetime_s: float = 3600.0) -> str:
        path = self.path(key)
        make_folders(path.parent)
        return path.as_uri()


@contextlib.contextmanager
def _only_files(key: str) -> Iterator[None]:
    """A folder, or a name below a file, is a key that isn't there."""
    try:
        yield
    except (IsADirectoryError, NotADirectoryError) as problem:
        raise FileNotFoundError(key) from problem
