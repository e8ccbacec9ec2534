"""Which chunk of a stream holds a byte: begins of chunks in memory, read again from a listing when unknown."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from atelier.crash_points import crash_point
from atelier.storage import BlobStore, RunPaths

MOST_STREAMS = 1000
"""Streams whose chunks are remembered; those that were used last."""

MOST_BYTES = 1 << 20
SMALL_BYTES = 64 << 10
MERGED_AT_ONCE = 64
_TRIES = 5


class StreamKey(NamedTuple):
    """One stream of one attempt: ``log`` or ``metrics``."""

    run_id: str
    n: int
    stream: str

    @property
    def folder(self) -> str:
        """Where its chunks lie."""
        return RunPaths(self.run_id).chunks(self.n, self.stream)

    @property
    def whole(self) -> str:
        """The one object that it becomes."""
        return RunPaths(self.run_id).whole(self.n, self.stream)

    def chunk(self, start: int) -> str:
        """The chunk that begins at a byte."""
        return RunPaths(self.run_id).chunk(self.n, self.stream, start)


@dataclass
class Chunks:
    """Begins of the chunks of streams, sorted.

    A chunk holds the bytes from its begin to the next one's: where two overlap, which a crash while merging leaves, the
    later begin counts, so no byte is read twice. `guard` is held by whoever changes a stream.
    """

    blobs: BlobStore
    _begins: OrderedDict[StreamKey, list[int]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _guards: tuple[threading.RLock, ...] = field(default_factory=lambda: tuple(threading.RLock() for _ in range(64)))

    def guard(self, key: StreamKey) -> threading.RLock:
        """The lock under which a stream changes; streams may share one."""
        return self._guards[hash(key) % len(self._guards)]

    def holding(self, key: StreamKey, offset: int) -> tuple[int, int | None] | None:
        """Begin of the chunk that holds a byte, and of the next one; None when there is no such chunk."""
        begins = self._known(key)
        place = bisect_right(begins, offset)
        if place == 0:
            return None
        return begins[place - 1], begins[place] if place < len(begins) else None

    def _known(self, key: StreamKey) -> list[int]:
        with self._lock:
            begins = self._begins.get(key)
            if begins is not None:
                self._begins.move_to_end(key)
                return begins
        with self.guard(key):
            found = [int(name.rsplit("/", 1)[1]) for name in self.blobs.keys(key.folder)]
            return self._remember(key, found)

    def _remember(self, key: StreamKey, begins: list[int]) -> list[int]:
        with self._lock:
            self._begins[key] = begins
            self._begins.move_to_end(key)
            while len(self._begins) > MOST_STREAMS:
                self._begins.popitem(last=False)
        return begins

    def forget(self, key: StreamKey) -> None:
        """Read a stream's chunks from a listing the next time."""
        with self._lock:
            self._begins.pop(key, None)

    def add(self, key: StreamKey, start: int) -> None:
        """A chunk was written; ``guard`` is held."""
        begins = self._known(key)
        if start not in begins[-1:]:
            self._remember(key, sorted({*begins, start}) if begins and start < begins[-1] else [*begins, start])

    def pieces(self, key: StreamKey, offset: int, limit: int) -> Iterator[bytes]:
        """At most ``limit`` bytes of a stream from ``offset`` on, in pieces of at most `MOST_BYTES`."""
        while limit > 0 and (part := self._piece(key, offset, min(limit, MOST_BYTES))):
            yield part
            offset += len(part)
            limit -= len(part)

    def _piece(self, key: StreamKey, offset: int, limit: int) -> bytes:
        for _ in range(_TRIES):
            if self.blobs.exists(key.whole) and (part := self.blobs.read(key.whole, offset, limit)):
                return part
            held = self.holding(key, offset)
            if held is None:  # there is nothing, or it was composed meanwhile
                return self.blobs.read(key.whole, offset, limit) if self.blobs.exists(key.whole) else b""
            start, end = held
            try:
                return self.blobs.read(
                    key.chunk(start), offset - start, limit if end is None else min(limit, end - offset)
                )
            except FileNotFoundError:  # it was merged or composed meanwhile
                self.forget(key)
        return b""

    def merge(self, key: StreamKey, size: int) -> None:
        """Make one chunk of the newest `MERGED_AT_ONCE` when all are small; ``guard`` is held.

        The first one is replaced by all their bytes before the others go: whenever this is cut off, every byte is
        there.
        """
        begins = self._known(key)
        newest = begins[-MERGED_AT_ONCE:]
        ends = [*newest[1:], size]
        lengths = [end - start for start, end in zip(newest, ends, strict=True)]
        if len(newest) < MERGED_AT_ONCE or max(lengths) > SMALL_BYTES or min(lengths) < 0:
            return
        data = b"".join(
            self.blobs.read(key.chunk(start), 0, length) for start, length in zip(newest, lengths, strict=True)
        )
        if len(data) != size - newest[0]:
            return
        crash_point("service.merge.before")
        self.blobs.write(key.chunk(newest[0]), data)
        crash_point("service.merge.written")
        self._remember(key, begins[: 1 - MERGED_AT_ONCE])
        for start in newest[1:]:
            self.blobs.delete(key.chunk(start))
        crash_point("service.merge.after")
