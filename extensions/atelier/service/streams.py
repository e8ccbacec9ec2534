"""Log and metric bytes of attempts as blobs: chunks named by their offset, one object when the attempt has ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from atelier.errors import RefusedInput
from atelier.records import Attempt, Run
from atelier.service.store import Store, parse_points
from atelier.service.store.streams import Point
from atelier.storage import BlobStore, RunPaths

MOST_BYTES = 1 << 20


@dataclass
class Streams:
    """Appends to and reads from the streams ``log`` and ``metrics`` of an attempt."""

    store: Store
    blobs: BlobStore

    def append(self, run_id: str, n: int, stream: str, offset: int, data: bytes) -> tuple[int, list[Point]]:
        """Store a chunk and acknowledge it: the stream's size now, and the points that are new.

        The bytes are durable before they count, so a crash in between costs a repeat and never a gap.
        """
        size = self.store.streams.size(run_id, n, stream)
        if offset != size or not data:
            return size, []
        points = parse_points(data) if stream == "metrics" else []
        self.blobs.write(RunPaths(run_id).chunk(n, stream, offset), data)
        after = self.store.streams.appended(run_id, n, stream, offset=offset, length=len(data), points=points)
        return after, points

    def read(self, run_id: str, n: int, stream: str, offset: int, limit: int) -> bytes:
        """At most ``limit`` bytes of a stream from ``offset`` on."""
        paths = RunPaths(run_id)
        whole = paths.whole(n, stream)
        if self.blobs.exists(whole):
            return self.blobs.read(whole, offset, limit)
        parts: list[bytes] = []
        for start, key in self._chunks(run_id, n, stream):
            if limit <= 0:
                break
            end = start + self.blobs.size_bytes(key)
            if end > offset:
                part = self.blobs.read(key, max(0, offset - start), limit)
                parts.append(part)
                limit -= len(part)
        return b"".join(parts)

    def _chunks(self, run_id: str, n: int, stream: str) -> Iterator[tuple[int, str]]:
        for key in self.blobs.keys(RunPaths(run_id).chunks(n, stream)):
            yield int(key.rsplit("/", 1)[1]), key

    def compose(self, run_id: str, n: int) -> None:
        """Make each stream of an ended attempt one object; called again it changes nothing."""
        for stream in ("log", "metrics"):
            paths, size = RunPaths(run_id), self.store.streams.size(run_id, n, stream)
            if not self.blobs.exists(paths.whole(n, stream)):
                self.blobs.write(paths.whole(n, stream), self.read(run_id, n, stream, 0, size))
            self.blobs.delete(paths.chunks(n, stream))

    def page(self, run: Run, *, attempt: int | None, offset: int, limit: int) -> dict[str, Any]:
        """A piece of a log as text, cut at whole characters, with the offset to go on from."""
        chosen = pick_attempt(run, attempt)
        if chosen is None:
            return {"attempt": 0, "offset": 0, "next": 0, "size": 0, "text": "", "end": run.state.is_final}
        size = chosen.log_size_bytes
        start = max(0, size + offset) if offset < 0 else min(offset, size)
        data = self.read(run.id, chosen.n, "log", start, min(max(1, limit), MOST_BYTES, max(0, size - start) or 1))
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

    def points(self, run: Run, name: str) -> list[list[Any]]:
        """Every point of one metric, over all attempts: ``[step, value, time]``."""
        found: list[list[Any]] = []
        for attempt in run.attempts:
            size = self.store.streams.size(run.id, attempt.n, "metrics")
            points = parse_points(self.read(run.id, attempt.n, "metrics", 0, size))
            found += [[point.step, point.value, point.time] for point in points if point.name == name]
        return found


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
