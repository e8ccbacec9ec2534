"""Blobs in an object store, through fsspec."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from atelier.errors import Unavailable
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
        self._fs.put_file(str(source), self._name(key))

    def open(self, key: str) -> BinaryIO:
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
        for name in sorted(self._fs.find(self._name(prefix))):
            yield str(name)[start:]

    def copy(self, source: str, target: str) -> None:
        self._fs.cp_file(self._name(source), self._name(target))

    def delete(self, prefix: str) -> None:
        if self._fs.exists(self._name(prefix)):
            self._fs.rm(self._name(prefix), recursive=True)

    def read_url(self, key: str, *, lifetime_s: float = 3600.0) -> str:
        return self._signed(key, lifetime_s, "get_object")

    def write_url(self, key: str, *, lifetime_s: float = 3600.0) -> str:
        return self._signed(key, lifetime_s, "put_object")

    def _signed(self, key: str, lifetime_s: float, method: str) -> str:
        try:
            return str(self._fs.sign(self._name(key), expiration=int(lifetime_s), client_method=method))
        except NotImplementedError:
            return f"{self._fs.unstrip_protocol(self._name(key))}"
