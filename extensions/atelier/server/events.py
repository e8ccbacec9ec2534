"""Live changes: one event stream from the service for all pages of this server, one WebSocket to each page."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import httpx

from atelier.errors import AtelierError
from atelier.quantities import utcnow
from atelier.server.link import ServiceLink, read_json, unreachable
from atelier.server.outbox import RESYNC, Message
from atelier.wire import error_body

SILENCE_S = 60.0
"""A stream that says nothing for so long, not even a comment, is opened again."""

FIRST_WAIT_S = 0.3
LONGEST_WAIT_S = 10.0
TYPES = frozenset({"run", "log", "metrics", "artifact", "removed", "resync"})


class Listener(Protocol):
    """A page: takes messages without waiting."""

    def take(self, message: Message) -> None: ...


@dataclass
class Event:
    """One server-sent event."""

    type: str
    data: str
    id: str | None


async def read_events(lines: AsyncIterator[str]) -> AsyncIterator[Event]:
    """Events of a ``text/event-stream``; comments and fields of no use here are dropped."""
    kind = "message"
    data: list[str] = []
    last_id: str | None = None
    async for line in lines:
        if not line:
            if data:
                yield Event(kind, "\n".join(data), last_id)
            kind, data = "message", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id":
            last_id = value


class Feed:
    """Reads the service's event stream while there is a page, and hands each event to all pages.

    The stream is resumed with ``Last-Event-ID`` and, since a restarted service may have forgotten, each page is told to
    read again after every gap. Used on one event loop only.
    """

    def __init__(self, link: ServiceLink, *, longest_wait_s: float = LONGEST_WAIT_S) -> None:
        self._link = link
        self._longest_wait_s = longest_wait_s
        self._listeners: set[Listener] = set()
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._last_id: str | None = None
        self._state: Message | None = None

    def join(self, listener: Listener) -> None:
        """Adds a page and tells it how the service is; the first page opens the stream."""
        self._listeners.add(listener)
        if self._state is not None:
            listener.take(self._state)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def leave(self, listener: Listener) -> None:
        """Removes a page; the last one closes the stream. Does nothing for a page that is not here."""
        self._listeners.discard(listener)
        if not self._listeners:
            self._stop()

    def wake(self) -> None:
        """Tries again now instead of at the end of the wait."""
        self._wake.set()

    async def close(self) -> None:
        """Ends the stream for good."""
        self._listeners.clear()
        task = self._task
        self._stop()
        if task is not None:
            await asyncio.wait({task})

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._task = self._state = self._last_id = None

    async def _run(self) -> None:
        wait_s = FIRST_WAIT_S
        while True:
            try:
                async for event in self._stream():
                    wait_s = FIRST_WAIT_S
                    self._hand_on(event)
            except AtelierError as problem:
                self._tell_state(problem)
            await self._pause(wait_s)
            wait_s = min(wait_s * 2, self._longest_wait_s)

    async def _stream(self) -> AsyncIterator[Event]:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self._last_id is not None:
            headers["Last-Event-ID"] = self._last_id
        response = await self._link.open("GET", "/events", headers=headers, read_s=SILENCE_S)
        try:
            if response.status_code != 200:
                await read_json(response)
                raise unreachable(ValueError(f"status {response.status_code}"))
            self._tell_state(None)
            async for event in read_events(response.aiter_lines()):
                yield event
        except httpx.TransportError:
            return  # a gap, and not yet a dead service: the next try tells
        finally:
            await response.aclose()

    def _hand_on(self, event: Event) -> None:
        if event.id is not None:
            self._last_id = event.id
        if event.type not in TYPES:
            return
        try:
            data = json.loads(event.data)
        except ValueError:
            self._broadcast(RESYNC)
            return
        self._broadcast({"type": event.type, "data": data})

    def _tell_state(self, problem: AtelierError | None) -> None:
        self._state = service_message(problem, since=utcnow())
        self._broadcast(self._state)
        if problem is None:
            self._broadcast(RESYNC)

    def _broadcast(self, message: Message) -> None:
        for listener in tuple(self._listeners):
            listener.take(message)

    async def _pause(self, wait_s: float) -> None:
        self._wake.clear()
        await _either(self._wake.wait(), wait_s * random.uniform(0.8, 1.2))


def service_message(problem: AtelierError | None, *, since: datetime) -> Message:
    """The message that tells a page how the service is."""
    error: dict[str, Any] | None = error_body(problem)["error"] if problem else None
    moment = since.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"type": "service", "data": {"up": problem is None, "since": moment, "error": error}}


async def _either(awaited: Awaitable[Any], limit_s: float) -> None:
    try:
        await asyncio.wait_for(awaited, limit_s)
    except TimeoutError:
        return
