"""Live changes to whoever watches: what the store says of runs, and what passes by (log sizes, points, artifacts)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from atelier.records import Run
from atelier.service.store import Store
from atelier.service.store.streams import Point

MOST_EVENTS = 1000
MOST_POINTS = 20_000
"""Of all metrics that wait for one watcher."""

COALESCE_S = 0.05
KEEPALIVE_S = 15.0
LONGEST_S = 600.0
PAGE = 500
EVENT_NAMES = 200


@dataclass(frozen=True)
class Event:
    """One server-sent event; ``change`` is the number a client resumes after, None for what it reads anew anyway."""

    type: str
    data: dict[str, Any]
    change: int | None = None

    def encode(self) -> bytes:
        """The event as ``text/event-stream`` has it."""
        head = f"id: {self.change}\n" if self.change is not None else ""
        return f"{head}event: {self.type}\ndata: {json.dumps(self.data, allow_nan=False)}\n\n".encode()


def metrics_event(run_id: str, points: Iterable[Point]) -> Event:
    """New points of a run by name: of the first `EVENT_NAMES` names; those of others are had by asking for them."""
    named: dict[str, list[list[Any]]] = {}
    for point in points:
        if point.name in named or len(named) < EVENT_NAMES:
            named.setdefault(point.name, []).append([point.step, point.value, point.time])
    last = {name: values[-1][1] for name, values in named.items()}
    return Event("metrics", {"run": run_id, "last": last, "points": named})


class _Backlog:
    """Events that wait for one watcher: sizes and files once, with what is newest, and the points of a run together.

    When more than `MOST_EVENTS` or `MOST_POINTS` would wait, all go for one ``resync``.
    """

    def __init__(self) -> None:
        self._waiting: dict[tuple[Any, ...], Event] = {}
        self._points = 0

    def put(self, event: Event) -> None:
        """Add an event; it stays as it is, others wait for it too."""
        key = _key(event)
        if ("resync",) in self._waiting:
            return
        if event.type == "metrics":
            self._points += sum(len(values) for values in event.data["points"].values())
            if self._points <= MOST_POINTS:
                self._join(key, event)
        else:
            self._waiting[key] = event
        if self._points > MOST_POINTS or len(self._waiting) > MOST_EVENTS:
            self._waiting = {("resync",): Event("resync", {})}

    def _join(self, key: tuple[Any, ...], event: Event) -> None:
        own = self._waiting.setdefault(key, Event("metrics", event.data | {"last": {}, "points": {}})).data
        for name, values in event.data["points"].items():
            if name in own["points"] or len(own["points"]) < EVENT_NAMES:
                own["points"].setdefault(name, []).extend(values)
                own["last"][name] = event.data["last"][name]

    def drain(self) -> list[Event]:
        """All that waits; nothing does afterwards."""
        events, self._waiting, self._points = list(self._waiting.values()), {}, 0
        return events


def _key(event: Event) -> tuple[Any, ...]:
    told = event.data
    return event.type, told.get("run"), told.get("attempt"), told.get("artifact", {}).get("path")


@dataclass(eq=False)
class _Watcher:
    owner: str
    run_id: str | None
    passing: _Backlog = field(default_factory=_Backlog)
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class Feed:
    """Fans changes out to watchers, each bounded; one that is too slow is told to read everything anew (``resync``).

    `touch` and `publish` may be called from any thread. Truth lies in the store: a restart loses nothing.
    """

    def __init__(self, store: Store, *, longest_s: float = LONGEST_S) -> None:
        self._store = store
        self._longest_s = longest_s
        self._watchers: set[_Watcher] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = asyncio.Event()

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Deliver on this loop; until then nothing is watched."""
        self._loop = loop

    def close(self) -> None:
        """End all watches."""
        self._closing.set()
        for watcher in self._watchers:
            watcher.wake.set()

    def touch(self, owner: str) -> None:
        """Say that the store has something new of this owner's runs."""
        self._call(lambda: self._wake(owner))

    def publish(self, owner: str, run_id: str, event: Event) -> None:
        """Pass an event by to those who watch the run."""
        self._call(lambda: self._pass(owner, run_id, event))

    def _call(self, action: Callable[[], None]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(action)

    def _wake(self, owner: str) -> None:
        for watcher in self._watchers:
            if watcher.owner == owner:
                watcher.wake.set()

    def _pass(self, owner: str, run_id: str, event: Event) -> None:
        for watcher in self._watchers:
            if watcher.owner == owner and watcher.run_id in {None, run_id}:
                watcher.passing.put(event)
                watcher.wake.set()

    async def watch(self, owner: str, run_id: str | None, after: int | None) -> AsyncIterator[bytes]:
        """Encoded events of an owner's runs, or of one run, from change number ``after`` on.

        Without ``after`` it begins with the present state of the one run, or with nothing when all are watched; with a
        number that was never given (another database), with ``resync``. It ends after a while, so that a client that
        comes again shows its token again.
        """
        watcher = _Watcher(owner, run_id)
        self._watchers.add(watcher)
        clock = asyncio.get_running_loop().time
        ends_at = clock() + self._longest_s
        try:
            newest = await asyncio.to_thread(self._store.runs.newest_change, owner)
            yield b": atelier\n\n"
            if after is not None and after > newest:
                yield Event("resync", {}, newest).encode()
            change = min(after, newest) if after is not None else 0 if run_id else newest
            while not self._closing.is_set() and clock() < ends_at:
                changes = await self._changes(watcher, change)
                for event in watcher.passing.drain():  # first: who has heard of a run's end listens no more
                    yield event.encode()
                for event in changes:
                    change = event.change or change
                    yield event.encode()
                if not await self._pause(watcher, min(KEEPALIVE_S, max(0.0, ends_at - clock()))):
                    yield b": alive\n\n"
        finally:
            self._watchers.discard(watcher)

    async def _changes(self, watcher: _Watcher, change: int) -> list[Event]:
        watcher.wake.clear()
        events = []
        rows = await asyncio.to_thread(self._store.runs.changed_since, watcher.owner, change, watcher.run_id)
        if len(rows) >= PAGE:
            watcher.wake.set()
        for number, run in rows:
            if isinstance(run, Run):
                events.append(Event("run", run.model_dump(mode="json"), number))
            else:
                events.append(Event("removed", {"run": run}, number))
        return events

    async def _pause(self, watcher: _Watcher, pause_s: float) -> bool:
        try:
            await asyncio.wait_for(watcher.wake.wait(), pause_s)
        except TimeoutError:
            return False
        await asyncio.sleep(COALESCE_S)
        return True
