"""Who calls is remembered within bounds; who watches is told all, comes again in time, and stops nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import event

from atelier.errors import NotFound
from atelier.service import callers, connections
from atelier.service.app import create_app
from atelier.service.callers import HubIdentities, hub_owner
from atelier.service.feed import EVENT_NAMES, MOST_EVENTS, MOST_POINTS, Event, Feed, metrics_event
from atelier.service.serving import Plan, _Idle, assemble, server_of
from atelier.service.store import Store
from atelier.service.store.streams import Point
from atelier.testing.samples import beat, created, running
from atelier.wire import API
from tests.service_driver import SETTINGS

CREATED = "2026-01-02T03:04:05Z"


# -- tokens -------------------------------------------------------------------------------------------------------
@pytest.fixture
def hub() -> Iterator[tuple[str, Counter[str]]]:
    """A hub that knows every token that begins with ``known``, and counts the questions about each."""
    asked: Counter[str] = Counter()

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            token = self.headers["Authorization"].partition(" ")[2]
            asked[f"{self.path} {token}"] += 1
            known = token.startswith("known") or token == "service"
            model = {"kind": "user", "name": "ann", "created": CREATED, "groups": [], "scopes": ["access:services"]}
            body = json.dumps(model if known else {}).encode()
            self.send_response(200 if known else 403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join(timeout=10)
    server.server_close()


def test_unknown_tokens_push_out_no_known_one(hub: tuple[str, Counter[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    url, asked = hub
    monkeypatch.setattr(callers, "MOST_CACHED", 3)

    async def ask() -> None:
        identities = HubIdentities(url, "service")
        for n in range(3):
            found = await identities.caller(f"known-{n}")
            assert found is not None
            assert found.owner == hub_owner("ann", CREATED)
        for n in range(8):
            assert await identities.caller(f"unknown-{n}") is None
            assert await identities.caller(f"unknown-{n}") is None
        for n in range(3):
            assert await identities.caller(f"known-{n}") is not None
        assert {asked[f"/user known-{n}"] for n in range(3)} == {1}, "a known token was asked for again"
        assert {asked[f"/user unknown-{n}"] for n in range(8)} == {1}
        await identities.caller("known-0")
        await identities.caller("known-3")
        await identities.caller("known-0")
        await identities.caller("known-1")
        assert [asked[f"/user known-{n}"] for n in (0, 3, 1)] == [1, 1, 2], "not the one that was longest unused went"

    asyncio.run(ask())


def test_an_unknown_token_is_soon_asked_for_again(
    hub: tuple[str, Counter[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, asked = hub
    assert callers.UNKNOWN_CACHE_S <= 5 < callers.CACHE_S
    monkeypatch.setattr(callers, "UNKNOWN_CACHE_S", 0.2)

    async def ask() -> None:
        identities = HubIdentities(url, "service")
        for pause_s in (0, 0.3):
            await asyncio.sleep(pause_s)
            assert await identities.caller("unknown") is None
            assert await identities.caller("known") is not None
        assert (asked["/user unknown"], asked["/user known"]) == (2, 1)

    asyncio.run(ask())


# -- feed ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'atelier.sqlite'}")
    yield store
    store.close()


async def first(stream: AsyncIterator[bytes], count: int) -> list[str]:
    """The next pieces of a stream, each within its time."""
    return [(await asyncio.wait_for(anext(stream), 10)).decode() for _ in range(count)]


def test_a_watch_ends_so_that_its_token_is_shown_again(store: Store) -> None:
    async def watch() -> None:
        feed = Feed(store, longest_s=0.5)
        feed.bind(asyncio.get_running_loop())
        clock = asyncio.get_running_loop().time
        began = clock()
        seen = [piece async for piece in feed.watch("ann#1", None, None)]
        assert seen[0] == b": atelier\n\n"
        assert 0.4 < clock() - began < 5

    asyncio.run(asyncio.wait_for(watch(), 20))


@pytest.mark.parametrize("of_one", [True, False], ids=["one run", "all runs"])
def test_a_number_from_another_database_is_told_to_read_anew(store: Store, of_one: bool) -> None:
    claim = running(store)
    newest = store.runs.newest_change("ann#1")

    async def watch() -> None:
        feed = Feed(store)
        feed.bind(asyncio.get_running_loop())
        stream = feed.watch("ann#1", claim.run_id if of_one else None, 10**17)
        assert await first(stream, 2) == [": atelier\n\n", f"id: {newest}\nevent: resync\ndata: {{}}\n\n"]
        beat(store, claim, warnings=["late"])
        feed.touch("ann#1")
        told = (await first(stream, 1))[0]
        assert told.startswith(f"id: {newest + 1}\nevent: run\n")
        assert "late" in told

    asyncio.run(watch())


def points(run: str, step: int, count: int, *names: str) -> Event:
    """An event with so many points of each name."""
    named = names or ("loss",)
    return metrics_event(run, [Point(name, step + n, 0.5, 1.0) for n in range(count) for name in named])


def after_a_stall(store: Store, *passed: tuple[str, Event], longest_s: float = 0.5) -> list[tuple[str, Any]]:
    """What a watcher is told in ``longest_s``, by type and data, who read nothing while these events passed by."""

    async def watch() -> list[tuple[str, Any]]:
        feed = Feed(store, longest_s=longest_s)
        feed.bind(asyncio.get_running_loop())
        stream = feed.watch("ann#1", None, None)
        await first(stream, 1)
        for run, each in passed:
            feed.publish("ann#1", run, each)
        await asyncio.sleep(0)
        told = [piece.decode().partition("\ndata: ") async for piece in stream if b"data: " in piece]
        return [(head.removeprefix("event: "), json.loads(data)) for head, _, data in told]

    return asyncio.run(asyncio.wait_for(watch(), 20))


def test_points_of_a_run_wait_as_one_event(store: Store) -> None:
    passed = [("r-a", points("r-a", 10 * n, 10)) for n in range(20)]
    passed.insert(5, ("r-b", points("r-b", 0, 1, "up")))
    told = {data["run"]: data for kind, data in after_a_stall(store, *passed) if kind == "metrics"}
    assert [step for step, _, _ in told["r-a"]["points"]["loss"]] == list(range(200))
    assert told["r-a"]["last"] == {"loss": 0.5}
    assert told["r-b"]["points"] == {"up": [[0, 0.5, 1.0]]}
    assert passed[0][1].data["points"]["loss"] == [[n, 0.5, 1.0] for n in range(10)], "others have this event, too"


def test_of_a_logs_sizes_the_newest_waits(store: Store) -> None:
    sizes = [("r-a", Event("log", {"run": "r-a", "attempt": 1, "size": n})) for n in range(1500)]
    assert after_a_stall(store, *sizes) == [("log", {"run": "r-a", "attempt": 1, "size": 1499})]


@pytest.mark.parametrize(
    "passed",
    [
        [("r-a", points("r-a", 1000 * n, 1000)) for n in range(50)],
        [(f"r-{n}", points(f"r-{n}", 0, 1000)) for n in range(50)],
        [("r-a", points("r-a", 0, 50_000))],
        [("r-a", points("r-a", n, 1, *(f"n{n}-{k}" for k in range(200)))) for n in range(200)],
    ],
    ids=["one run", "many runs", "one event", "many names"],
)
def test_who_reads_nothing_is_kept_no_more_than_some_points(store: Store, passed: list[tuple[str, Event]]) -> None:
    told = after_a_stall(store, *passed)
    waited = sum(len(values) for kind, data in told if kind == "metrics" for values in data["points"].values())
    assert waited <= MOST_POINTS
    assert told[0] == ("resync", {}) or max(len(data["points"]) for _, data in told) <= EVENT_NAMES


def test_many_artifacts_are_read_anew(store: Store) -> None:
    passed = [
        ("r-a", Event("artifact", {"run": "r-a", "artifact": {"path": f"{n}.txt"}})) for n in range(MOST_EVENTS + 1)
    ]
    assert after_a_stall(store, *passed) == [("resync", {})]
    assert len(after_a_stall(store, *passed[:-1], longest_s=3.0)) == MOST_EVENTS


async def until_the_end(reader: asyncio.StreamReader) -> int:
    """How many bytes come before the other side ends the connection."""
    taken = 0
    with contextlib.suppress(ConnectionResetError):
        while part := await reader.read(1 << 20):
            taken += len(part)
    return taken


def test_who_takes_no_more_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STALLED_S", 0.5)
    (tmp_path / "atelier.yaml").write_text(SETTINGS)
    path = tmp_path / "service.sock"
    service = assemble(Plan(tmp_path), path, "token", _Idle(0.0))
    server = server_of(service)

    async def stall() -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(f"GET {API}/events HTTP/1.1\r\nHost: x\r\nAuthorization: token token\r\n\r\n".encode())
        await reader.readuntil(b": atelier")
        caller = await service.callers.caller("token token")
        for n in range(40):
            service.feed.publish(caller.owner, "r-a", points("r-a", n, 15_000))
            await asyncio.sleep(0.05)
        assert await asyncio.wait_for(until_the_end(reader), 10) > 0
        writer.close()
        async with asyncio.timeout(10):
            while service.feed._watchers:
                await asyncio.sleep(0.05)

    async def serve() -> None:
        with socket.socket(socket.AF_UNIX) as line:
            line.bind(str(path))
            serving = asyncio.create_task(server.serve(sockets=[line]))
            while not server.started:
                await asyncio.sleep(0.01)
            await stall()
            server.should_exit = True
            await asyncio.wait_for(serving, 10)

    asyncio.run(serve())


def test_to_watch_a_run_asks_the_database_in_another_thread(tmp_path: Path) -> None:
    (tmp_path / "atelier.yaml").write_text(SETTINGS)
    service = assemble(Plan(tmp_path), tmp_path / "service.sock", "token", _Idle(0.0))
    threads: set[int] = set()
    event.listen(service.store.database.engine, "begin", lambda connection: threads.add(threading.get_ident()))

    async def ask() -> None:
        transport = httpx.ASGITransport(create_app(service))
        headers = {"Authorization": "token token"}
        async with httpx.AsyncClient(transport=transport, base_url="http://atelier", headers=headers) as http:
            answer = await http.get(f"{API}/runs/r-aaaaaaaaaa/events")
        assert answer.json()["error"]["code"] == "unknown_run"

    with pytest.raises(NotFound):
        service.store.runs.get(created(service.store)[:-1])
    threads.clear()
    asyncio.run(ask())
    assert threads
    assert threading.get_ident() not in threads
    service.store.close()
