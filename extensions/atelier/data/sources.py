"""Bytes at an offset, wherever they lie, and a file object over them that counts what is read and stops at a budget."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from atelier.errors import RefusedInput
from atelier.quantities import format_bytes


class Source(Protocol):
    """The content of one file, for one thread at a time. ``read`` returns fewer bytes than asked only at the end."""

    size_bytes: int

    def read(self, offset: int, length: int) -> bytes: ...

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]: ...

    def close(self) -> None: ...


class FileSource:
    """A regular file of this machine, by its open descriptor, which it owns."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size_bytes = os.fstat(descriptor).st_size

    def read(self, offset: int, length: int) -> bytes:
        parts = []
        while length > 0 and (part := os.pread(self._descriptor, length, offset)):
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return b"".join(parts)

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return [self.read(offset, length) for offset, length in ranges]

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class BytesSource:
    """Bytes that are in memory already, e.g. the unpacked head of a gzip file."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size_bytes = len(content)

    def read(self, offset: int, length: int) -> bytes:
        return self._content[offset : offset + length]

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return [self.read(offset, length) for offset, length in ranges]

    def close(self) -> None:
        self._content = b""


class OverBudget(RefusedInput):
    """A preview would read more bytes, or take longer, than it may."""


@dataclass
class Budget:
    """How many bytes one preview may read and until when; ``spent_bytes`` is what it has read.

    Parameters
    ----------
    limit_bytes : int
        Most bytes that may be read from the file.
    limit_s : float
        Seconds from now until reading stops.
    """

    limit_bytes: int
    limit_s: float
    spent_bytes: int = 0
    started_s: float = field(default_factory=time.monotonic)

    @property
    def left_bytes(self) -> int:
        return max(0, self.limit_bytes - self.spent_bytes)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started_s

    def take(self, length: int) -> None:
        """Say beforehand that ``length`` bytes are about to be read; raises `OverBudget` when they may not be."""
        if length > self.left_bytes:
            raise OverBudget(
                "over_budget",
                f"This preview needs more than {format_bytes(self.limit_bytes)} of the file.",
                hint="Ask for it with a larger budget.",
                detail={"limit_bytes": self.limit_bytes},
            )
        if self.elapsed_s > self.limit_s:
            raise OverBudget(
                "over_time",
                f"This preview took longer than {self.limit_s:g} s.",
                hint="The storage is slow now; try again, or ask for fewer columns.",
                detail={"limit_s": self.limit_s},
            )
        self.spent_bytes += length


class Reader(io.RawIOBase):
    """A seekable file object over a source; every byte asked of the source is first taken from the budget."""

    def __init__(self, source: Source, budget: Budget) -> None:
        super().__init__()
        self._source = source
        self._position = 0
        self._fetched: list[tuple[int, bytes]] = []
        self.budget = budget
        self.size_bytes = source.size_bytes

    def at(self, offset: int, length: int) -> bytes:
        """Bytes at an offset, fewer at the file's end; the position stays. What was fetched before costs nothing."""
        end = min(offset + max(0, length), self.size_bytes)
        parts = []
        while offset < end:
            part = self._fetched_at(offset, end)
            if not part:
                stop = min([start for start, _ in self._fetched if offset < start < end], default=end)
                self.budget.take(stop - offset)
                part = self._source.read(offset, stop - offset)
                if not part:
                    break
            parts.append(part)
            offset += len(part)
        return b"".join(parts)

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Fetch several places in as few requests as the source can make of them, and keep them for later reads."""
        within = [(offset, min(length, self.size_bytes - offset)) for offset, length in ranges]
        missing = [
            (offset, length) for offset, length in within if len(self._fetched_at(offset, offset + length)) < length
        ]
        for (offset, _), content in zip(missing, self.at_many(missing), strict=True):
            self._fetched.append((offset, content))

    def _fetched_at(self, offset: int, end: int) -> bytes:
        for start, content in self._fetched:
            if start <= offset < start + len(content):
                return content[offset - start : end - start]
        return b""

    def at_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """As `at` for several places, in as few requests as the source can make of them."""
        within = [(offset, max(0, min(length, self.size_bytes - offset))) for offset, length in ranges]
        self.budget.take(sum(length for _, length in within))
        return self._source.read_many(within)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        content = self.at(self._position, len(buffer))
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size_bytes}[whence]
        if base + offset < 0:
            raise OSError(f"seek to {base + offset}, before the file's beginning")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()


def _fits_the_protocol(file: FileSource, content: BytesSource) -> tuple[Source, Source]:
    return file, content
