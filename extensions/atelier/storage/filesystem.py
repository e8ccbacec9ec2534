"""Blobs in a folder of a local disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from atelier.storage.base import BlobStore, checked_key


class FilesystemBlobs(BlobStore):
    """A `BlobStore` below one folder; a write goes to a temporary file, is synced, and is renamed into place."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, key: str) -> Path:
        """The file of a key."""
        return self.root / checked_key(key)

    def write(self, key: str, data: bytes) -> None:
        self._replace(key, lambda stream: stream.write(data))

    def put_file(self, key: str, source: Path) -> None:
        with source.open("rb") as reader:
            self._replace(key, lambda stream: shutil.copyfileobj(reader, stream, 1 << 20))

    def _replace(self, key: str, fill: Callable[[BinaryIO], object]) -> None:
        target = self.path(key)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".part-", dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                fill(stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(name, target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def open(self, key: str) -> BinaryIO:
        return self.path(key).open("rb")

    def size_bytes(self, key: str) -> int:
        return self.path(key).stat().st_size

    def exists(self, key: str) -> bool:
        return self.path(key).is_file()

    def keys(self, prefix: str) -> Iterator[str]:
        folder = self.path(prefix)
        for place, folders, files in os.walk(folder):
            folders.sort()
            for name in sorted(files):
                if not name.startswith(".part-"):
                    yield (Path(place) / name).relative_to(self.root).as_posix()

    def copy(self, source: str, target: str) -> None:
        self.put_file(target, self.path(source))

    def delete(self, prefix: str) -> None:
        path = self.path(prefix)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def read_url(self, key: str, *, lifetime_s: float = 3600.0) -> str:
        return f"file://{self.path(key)}"

    def write_url(self, key: str, *, lifetime_s: float = 3600.0) -> str:
        path = self.path(key)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return f"file://{path}"
