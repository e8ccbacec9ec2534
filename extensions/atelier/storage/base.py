"""The contract of a blob store."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from atelier.errors import InternalError


class BlobStore(ABC):
    """Named immutable byte strings; a write is whole or not there.

    A key is a relative POSIX path without empty, ``.`` or ``..`` parts. All methods may be called from any thread, and
    by several processes at once. Writing a key again replaces it in one step: a reader sees the old or the new bytes.
    A store holds no open files between calls. Missing keys raise `FileNotFoundError`.
    """

    @abstractmethod
    def write(self, key: str, data: bytes) -> None:
        """Store ``data`` under ``key``, durable when this returns."""

    @abstractmethod
    def put_file(self, key: str, source: Path) -> None:
        """Store a copy of a local file under ``key``, durable when this returns."""

    @abstractmethod
    def open(self, key: str) -> BinaryIO:
        """A seekable stream over the bytes of ``key``; the caller closes it."""

    @abstractmethod
    def size_bytes(self, key: str) -> int:
        """How many bytes ``key`` has."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Whether ``key`` is there."""

    @abstractmethod
    def keys(self, prefix: str) -> Iterator[str]:
        """All keys below a folder-like prefix, sorted; nothing for a prefix that isn't there."""

    @abstractmethod
    def names(self, prefix: str) -> list[str]:
        """The first part below a folder-like prefix of every key there, sorted, without looking any deeper.

        A folder whose last key was removed may be among them.
        """

    @abstractmethod
    def sizes(self, prefix: str) -> dict[str, int]:
        """All keys below a folder-like prefix and how many bytes each has."""

    def clear_unfinished(self, prefix: str, age_s: float) -> int:
        """Remove what killed writers left below a prefix longer ago than that; how many there were.

        A store that shows nothing before it is whole has nothing of the kind.
        """
        return 0

    @abstractmethod
    def copy(self, source: str, target: str) -> None:
        """Store the bytes of one key under another; cheap where the store can."""

    @abstractmethod
    def delete(self, prefix: str) -> None:
        """Remove ``prefix`` itself and all keys below it; nothing happens when there are none."""

    @abstractmethod
    def read_url(self, key: str, *, lifetime_s: float = 3600.0) -> str:
        """A URL from which ``key`` can be read without asking the service: ``file://`` or presigned ``https://``."""

    @abstractmethod
    def write_url(self, key: str, *, lifetime_s: float = 3600.0) -> str:
        """A URL to which ``key`` can be written without asking the service."""

    @abstractmethod
    def age_s(self, key: str) -> float:
        """Seconds since ``key`` was written; a copy may be as old as what it was copied from."""

    def expire(self, prefix: str, age_s: float) -> int:
        """Remove all keys below a prefix that are older than that, and what is unfinished; how many there were.

        What is written again is as young as its last write. Called again, or by several at once, it removes the rest.
        """
        removed = 0
        for key in self.keys(prefix):
            with contextlib.suppress(FileNotFoundError):  # another one removes it too
                if self.age_s(key) > age_s:
                    self.delete(key)
                    removed += 1
        return removed + self.clear_unfinished(prefix, age_s)

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of ``key`` from ``offset`` on, at most ``length`` of them."""
        with self.open(key) as stream:
            stream.seek(offset)
            return stream.read(-1 if length is None else length)


def checked_key(key: str) -> str:
    """The key itself when it is well formed.

    Raises
    ------
    InternalError
        ``bad_key``: keys are made by us from checked names; a malformed one is a defect, never a user's doing.
    """
    parts = key.split("/")
    if any(part in {"", ".", ".."} for part in parts) or "\x00" in key:
        raise InternalError("bad_key", "A blob key is malformed.")
    return key
