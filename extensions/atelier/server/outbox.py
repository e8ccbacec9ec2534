"""Messages that wait for one page: newest states replace older ones, so that a slow page costs bounded memory."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any

Message = dict[str, Any]

LIMIT = 2000
POINTS_LIMIT = 20_000
RESYNC: Message = {"type": "resync", "data": {}}
"""Tells a page that it missed something and should read all it shows again."""


class Outbox:
    """A queue with one reader.

    ``run``, ``log`` and ``service`` messages tell a whole state: a newer one takes the place of an older unsent one.
    ``metrics`` of one run are joined. When more than `LIMIT` messages or `POINTS_LIMIT` points of one run wait, all
    are dropped for one `RESYNC`.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[tuple[Any, ...], Message] = OrderedDict()
        self._filled = asyncio.Event()
        self._count = 0

    def put(self, message: Message) -> None:
        """Adds a message; never waits."""
        key = self._key(message)
        older = self._waiting.pop(key, None)
        self._waiting[key] = newest = _joined(older, message) if older and message["type"] == "metrics" else message
        if len(self._waiting) > LIMIT or _points(newest) > POINTS_LIMIT:
            self._waiting.clear()
            self._waiting["resync",] = RESYNC
        self._filled.set()

    async def get(self) -> Message:
        """Removes and returns the next message; waits for one."""
        while not self._waiting:
            self._filled.clear()
            await self._filled.wait()
        return self._waiting.popitem(last=False)[1]

    def __len__(self) -> int:
        return len(self._waiting)

    def _key(self, message: Message) -> tuple[Any, ...]:
        kind, data = message["type"], message["data"]
        if kind in {"service", "resync"}:
            return (kind,)
        if kind in {"run", "log", "metrics"}:
            return (kind, run_of(message))
        self._count += 1
        return (kind, run_of(message), data.get("path"), self._count)


def run_of(message: Message) -> str | None:
    """The id of the run that a message is about."""
    data = message["data"]
    told = data.get("id") if message["type"] == "run" else data.get("run")
    return told if isinstance(told, str) else None


def _points(message: Message) -> int:
    return (
        sum(len(values) for values in message["data"].get("points", {}).values()) if message["type"] == "metrics" else 0
    )


def _joined(older: Message, newer: Message) -> Message:
    points = {name: list(values) for name, values in older["data"].get("points", {}).items()}
    for name, values in newer["data"].get("points", {}).items():
        points.setdefault(name, []).extend(values)
    last = {**older["data"].get("last", {}), **newer["data"].get("last", {})}
    return {"type": "metrics", "data": {**newer["data"], "last": last, "points": points}}
