"""Follows a run as it goes: its record whenever that changes, its log as it grows."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from atelier.client import Client
from atelier.errors import NotFound

FINAL = frozenset({"succeeded", "failed", "cancelled", "timed_out", "lost"})
"""`records.FINAL_STATES` as words; a test holds the two together. Here without pydantic, which costs a start 0.2 s."""

IDLE_S = 20.0
IDLE_BEFORE_DEADLINE_S = 1.0


class LogPiece(NamedTuple):
    """Some text of the log of one attempt."""

    attempt: int | None
    text: str


def is_final(record: dict[str, Any]) -> bool:
    """Whether the run will not change any more."""
    return record["state"] in FINAL


def is_older(record: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
    """Whether a record tells of an earlier moment than the one that is known.

    Answers and events come by two ways, so that an older one may arrive last.
    """
    return _moment(record) < _moment(known)


def _moment(record: Mapping[str, Any]) -> tuple[int, datetime]:
    """How many moves a run has made, then when its attempts were last heard of."""
    seen = [attempt["last_seen_at"] for attempt in record["attempts"] if attempt.get("last_seen_at")]
    return record.get("epoch", 0), max(map(datetime.fromisoformat, seen), default=datetime.min.replace(tzinfo=UTC))


def watch(client: Client, run_id: str, *, timeout_s: float | None = None) -> Iterator[dict[str, Any]]:
    """The run's record now and after every change, until it is final or the time is over; never an older one."""
    known: dict[str, Any] | None = None
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    idle_s = IDLE_S if timeout_s is None else min(IDLE_BEFORE_DEADLINE_S, max(timeout_s, 0.05))
    for event in client.events(run_id, idle_s=idle_s):
        if event.type == "removed":
            raise NotFound("unknown_run", f"The run {run_id} was removed.", hint="Look at 'atelier runs'.")
        if event.type in {"open", "run"}:
            record = client.run(run_id) if event.type == "open" else event.data
            if known is None or not is_older(record, known):
                known = record
                yield record
            if is_final(known):
                return
        if deadline is not None and time.monotonic() >= deadline:
            return


def read_log(client: Client, run_id: str, *, attempt: int | None = None, offset: int = 0) -> Iterator[LogPiece]:
    """The log of one attempt (the newest for None) as far as it is written, piece by piece."""
    while True:
        piece = client.log(run_id, offset=offset, attempt=attempt)
        attempt = piece["attempt"]
        if piece["text"]:
            yield LogPiece(attempt, piece["text"])
        if piece["next"] >= piece["size"] or piece["next"] <= offset:
            return
        offset = piece["next"]


def read_logs(client: Client, run_id: str, attempts: int) -> Iterator[LogPiece]:
    """The logs of so many attempts as far as they are written, the first attempt's first."""
    for attempt in range(1, attempts + 1):
        yield from read_log(client, run_id, attempt=attempt)


def follow_log(client: Client, run_id: str) -> Iterator[LogPiece]:
    """The log from the first attempt's beginning, as it grows and from attempt to attempt, until the run is final."""
    attempt, offset = 1, 0
    for record in _changes(client, run_id):
        newest = record["attempts"][-1]["n"] if record["attempts"] else 0
        while attempt <= newest:
            offset = yield from _grown(client, run_id, attempt, offset)
            if attempt == newest:
                break
            attempt, offset = attempt + 1, 0
        if is_final(record):
            return


def _changes(client: Client, run_id: str) -> Iterator[dict[str, Any]]:
    """The run's record after every sign of it, also of a longer log."""
    record: dict[str, Any] | None = None
    for event in client.events(run_id):
        if event.type == "removed":
            return
        if event.type in {"open", "log"} or record is None:
            record = client.run(run_id)
        elif event.type == "run":
            record = event.data
        elif event.type != "idle":
            continue
        yield record


def _grown(client: Client, run_id: str, attempt: int, offset: int) -> Generator[LogPiece, None, int]:
    """What the log of an attempt has from an offset on; returns where it ends now."""
    while True:
        piece = client.log(run_id, offset=offset, attempt=attempt)
        if piece["next"] <= offset:
            return offset
        offset = piece["next"]
        yield LogPiece(attempt, piece["text"])
        if offset >= piece["size"]:
            return offset
