"""Blobs in an object store, through fsspec."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

from atelier.errors import Unavailable
from atelier.quantities import utcnow
from atelier.storage.base import BlobStore, checked_key


class ObjectBlobs(BlobStore):
    """A `BlobStore` at any fsspec URL whose file system writes an object whole when it is closed (S3, GCS …)."""

    def __init__(self, url: str) -> None:
        import fsspec

        try:
            self._fs, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as problem:
            raise Unavailable(
                "blob_store_unknown",
                f"No library here opens {url!r}: {problem}",
                hint="Install its fsspec package, e.g. s3fs.",
            ) from problem
        self._root = str(root).rstrip("/")

    def _name(self, key: str) -> str:
        return f"{self._root}/{checked_key(key)}"

    def write(self, key: str, data: bytes) -> None:
        self._fs.pipe_file(self._name(key), data)

    def put_file(self, key: str, source: Path) -> None:
        with source.open("rb"):  # some file systems make an empty object before they look for the source
            self._fs.put_file(str(source), self._name(key))

    def open(self, key: str) -> BinaryIO:
        self._info(key)
        return cast(BinaryIO, self._fs.open(self._name(key), "rb"))

    def size_bytes(self, key: str) -> int:
        return int(self._info(key)["size"])

    def _info(self, key: str) -> dict[str, Any]:
        info: dict[str, Any] = self._fs.info(self._name(key))
        if info["type"] != "file":
            raise FileNotFoundError(key)
        return info

    def exists(self, key: str) -> bool:
        return bool(self._fs.isfile(self._name(key)))

    def keys(self, prefix: str) -> Iterator[str]:
        start = len(self._root) + 1
        for name in self._found(prefix):
            if name != self._name(prefix):
                yield name[start:]

    def _found(self, prefix: str) -> list[str]:
        return sorted(str(name) for name in self._fs.find(self._name(prefix)))

    def names(self, prefix: str) -> list[str]:
        try:
            found = self._fs.ls(self._name(prefix), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        above = f"{self._name(prefix)}/"
        return sorted(str(name).rstrip("/").removeprefix(above) for name in found if str(name).startswith(above))

    def sizes(self, prefix: str) -> dict[str, int]:
        start, found = len(self._root) + 1, self._fs.find(self._name(prefix), detail=True)
        return {
            str(name)[start:]: int(info["size"]) for name, info in sorted(found.items()) if name != self._name(prefix)
        }

    def copy(self, source: str, target: str) -> None:
        self._info(source)
        self._fs.cp_file(self._name(source), self._name(target))

    def delete(self, prefix: str) -> None:
        # One by one: fsspec's `rm` takes brackets and stars in a name as a pattern, and would remove what it fits.
        for name in self._found(prefix):
            with contextlib.suppress(FileNotFoundError):  # another one removes it too
                self._fs.rm_file(name)

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        return bytes(self._fs.cat_file(self._name(key), offset, None if length is None else offset + length))

    def age_s(self, key: str) -> float:
        self._info(key)
        moment: datetime = self._fs.modified(self._name(key))
        written = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return (utcnow() - written).total_seconds()

    def read_url(self, key: str, *, lifetime_s: float = 3600.0) -> str:
        return self._signed(key, lifetime_s, "get_object")

    def write_url(self, key: str, *, lifetime_s: float = 3600.0) -> str:
        return self._signed(key, lifetime_s, "put_object")

    def _signed(self, key: str, lifetime_s: float, method: str) -> str:
        try:
            return str(self._fs.sign(self._name(key), expiration=int(lifetime_s), client_method=method))
        except NotImplementedError:
            return f"{self._fs.unstrip_protocol(self._name(key))}"
