"""Log and metric bytes of attempts as blobs: chunks named by their offset, one object when the attempt has ended."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atelier.crash_points import crash_point
from atelier.errors import RefusedInput
from atelier.records import Attempt, Run
from atelier.service.chunks import MOST_BYTES, Chunks, StreamKey
from atelier.service.scratch import scratch_file
from atelier.service.store import Store, parse_points
from atelier.service.store.streams import STREAMS, Point
from atelier.storage import BlobStore

LONGEST_LINE_BYTES = 4 << 20


@dataclass
class Streams:
    """Appends to and reads from the streams ``log`` and ``metrics`` of an attempt, in memory that doesn't grow.

    ``scratch`` is a folder for temporary files; the system's own when None.
    """

    store: Store
    blobs: BlobStore
    scratch: Path | None = None
    chunks: Chunks = field(init=False)

    def __post_init__(self) -> None:
        self.chunks = Chunks(self.blobs)

    def append(self, run_id: str, n: int, stream: str, offset: int, data: bytes) -> tuple[int, list[Point]]:
        """Store a chunk and acknowledge it: the stream's size now, and the points that are new.

        The bytes are durable before they count, so a crash in between costs a repeat and never a gap.
        """
        key = StreamKey(run_id, n, stream)
        with self.chunks.guard(key):
            size = self.store.streams.size(run_id, n, stream)
            if offset != size or not data:
                return size, []
            points = parse_points(data) if stream == "metrics" else []
            crash_point("service.append.before")
            self.blobs.write(key.chunk(offset), data)
            crash_point("service.append.blob")
            self.chunks.add(key, offset)
            after = self.store.streams.appended(run_id, n, stream, offset=offset, length=len(data), points=points)
            crash_point("service.append.after")
            if after == offset + len(data):
                self.chunks.merge(key, after)
            return after, points

    def forget(self, run_id: str, n: int) -> None:
        """Look anew at where the pieces of an attempt's streams lie."""
        for stream in STREAMS:
            self.chunks.forget(StreamKey(run_id, n, stream))

    def read(self, run_id: str, n: int, stream: str, offset: int, limit: int) -> bytes:
        """At most ``limit`` bytes of a stream from ``offset`` on."""
        return b"".join(self.chunks.pieces(StreamKey(run_id, n, stream), offset, limit))

    def compose(self, run_id: str, n: int) -> None:
        """Make each stream of an ended attempt one object; called again it changes nothing."""
        for stream in STREAMS:
            key = StreamKey(run_id, n, stream)
            with self.chunks.guard(key):
                size = self.store.streams.size(run_id, n, stream)
                if not self.blobs.exists(key.whole) or self.blobs.size_bytes(key.whole) < size:
                    crash_point("service.compose.before")
                    self._compose(key, size)
                    crash_point("service.compose.written")
                self.blobs.delete(key.folder)
                crash_point("service.compose.after")
                self.chunks.forget(key)
        self.store.streams.fold(run_id)

    def _compose(self, key: StreamKey, size: int) -> None:
        with scratch_file(self.scratch, prefix="compose-") as copy:
            for part in self.chunks.pieces(key, 0, size):
                copy.write(part)
            copy.flush()
            self.blobs.put_file(key.whole, Path(copy.name))

    def page(self, run: Run, *, attempt: int | None, offset: int, limit: int) -> dict[str, Any]:
        """A piece of a log as text, cut at whole characters, with the offset to go on from."""
        chosen = pick_attempt(run, attempt)
        if chosen is None:
            return {"attempt": 0, "offset": 0, "next": 0, "size": 0, "text": "", "end": run.state.is_final}
        size = chosen.log_size_bytes
        start = max(0, size + offset) if offset < 0 else min(offset, size)
        data = self.read(run.id, chosen.n, "log", start, min(max(1, limit), MOST_BYTES, max(0, size - start)))
        text, used, skipped = _whole_text(data, is_last=start + len(data) >= size and chosen.state.is_final)
        end = start + used >= size and chosen.state.is_final
        return {
            "attempt": chosen.n,
            "offset": start + skipped,
            "next": start + used,
            "size": size,
            "text": text,
            "end": end,
        }

    def points(self, run: Run, name: str) -> Iterator[list[Any]]:
        """Every point of one metric, over all attempts: ``[step, value, time]``.

        Where a later attempt told steps again, what earlier ones told of them and of the steps after is left out.
        """
        told = [attempt.n for attempt in run.attempts if self.store.streams.size(run.id, attempt.n, "metrics")]
        ends = [math.inf]
        for n in reversed(told[1:]):
            first = min(
                (point.step for point in self._points_of(run.id, n, name) if point.step is not None), default=math.inf
            )
            ends.append(min(ends[-1], first))
        for n, end in zip(told, reversed(ends), strict=False):
            for point in self._points_of(run.id, n, name):
                if point.step is None or point.step < end:
                    yield [point.step, point.value, point.time]

    def _points_of(self, run_id: str, n: int, name: str) -> Iterator[Point]:
        size = self.store.streams.size(run_id, n, "metrics")
        for lines in _whole_lines(self.chunks.pieces(StreamKey(run_id, n, "metrics"), 0, size)):
            yield from (point for point in parse_points(lines) if point.name == name)


def _whole_lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The bytes of a stream, cut at ends of lines; a line longer than `LONGEST_LINE_BYTES` is torn."""
    rest = b""
    for part in pieces:
        lines, newline, tail = part.rpartition(b"\n")
        if newline:
            yield rest + lines
            rest = tail
        elif len(rest) < LONGEST_LINE_BYTES:
            rest += part
    yield rest


def pick_attempt(run: Run, n: int | None) -> Attempt | None:
    """The attempt of that number, or the newest for None; None when there is none yet.

    Raises
    ------
    RefusedInput
        ``unknown_attempt``.
    """
    if n is None:
        return run.attempts[-1] if run.attempts else None
    for attempt in run.attempts:
        if attempt.n == n:
            return attempt
    raise RefusedInput("unknown_attempt", f"Run {run.id} has no attempt {n}.", hint=f"It has {len(run.attempts)}.")


def _whole_text(data: bytes, *, is_last: bool) -> tuple[str, int, int]:
    """The text of a cut of UTF-8, how many of its bytes are used, and how many at its start belong to a cut letter."""
    skipped = 0
    while skipped < min(3, len(data)) and data[skipped] & 0xC0 == 0x80:
        skipped += 1
    used = len(data)
    if not is_last:
        for back in range(1, min(4, len(data) - skipped) + 1):
            lead = data[-back]
            if lead & 0xC0 != 0x80:
                needs = 4 if lead >= 0xF0 else 3 if lead >= 0xE0 else 2 if lead >= 0xC0 else 1
                used -= back if needs > back else 0
                break
    used = used or len(data)
    return data[skipped:used].decode(errors="replace"), used, skipped
