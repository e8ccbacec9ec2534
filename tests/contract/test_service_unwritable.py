"""A database that takes nothing while the service runs: it is told, by all and once, and work goes on afterwards."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import event

from atelier.records import RunState
from atelier.service.app import create_app
from atelier.service.handlers.context import Service
from atelier.testing.samples import queued, running
from atelier.wire import API, PREFIX


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@contextmanager
def unwritable(service: Service) -> Iterator[None]:
    """Have SQLite refuse each write, as it does over a disk that became read-only; what is read comes on."""
    engine = service.store.database.engine

    def refuse(connection: Any, *of: object) -> None:
        connection.execute("PRAGMA query_only=ON")

    def allow(connection: Any, *of: object) -> None:
        connection.execute("PRAGMA query_only=OFF")

    event.listen(engine, "checkout", refuse)
    event.listen(engine, "checkin", allow)
    try:
        yield
    finally:
        event.remove(engine, "checkout", refuse)
        event.remove(engine, "checkin", allow)


def answers(service: Service, *asked: tuple[str, str]) -> list[httpx.Response]:
    """What the service answers."""

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(create_app(service))
        headers = {"Authorization": "token token"}
        async with httpx.AsyncClient(transport=transport, base_url="http://atelier", headers=headers) as http:
            return [await http.request(method, path) for method, path in asked]

    return asyncio.run(ask())


def test_it_is_told_in_one_clear_error_until_it_is_over(service: Service) -> None:
    """Reads succeeded, and so the service said that it was ready."""
    owner = asyncio.run(service.callers.caller("token token")).owner
    run_id = running(service.store, owner).run_id
    asked = (("GET", f"{PREFIX}/readyz"), ("PUT", f"{API}/runs/{run_id}/pin"))
    with unwritable(service):
        ready, pinned = answers(service, *asked)
        assert (ready.status_code, pinned.status_code) == (503, 503)
        for answer in (ready, pinned):
            error = answer.json()["error"]
            assert error["code"] == "database_unusable"
            assert "readonly" in error["message"]
            assert "atelier doctor" in error["hint"]
        healthy, run = answers(service, ("GET", f"{PREFIX}/healthz"), ("GET", f"{API}/runs/{run_id}"))
        assert (healthy.status_code, run.json()["state"]) == (200, "running")
    assert [answer.status_code for answer in answers(service, *asked)] == [200, 200]


def test_the_log_has_one_line_of_it(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    run_id = queued(service.store)

    def passes() -> list[str]:
        caplog.clear()
        for _ in range(3):
            asyncio.run(service.reconciler.step())
        return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]

    with unwritable(service), caplog.at_level(logging.INFO, "atelier.service"):
        (line,) = passes()
        assert line.startswith("The database can't be used: _start_waiting failed")
        assert "readonly" in line
        assert all(record.exc_info is None for record in caplog.records)
        assert service.store.runs.get(run_id).state is RunState.QUEUED
        assert passes() == []
    service.store.runs.expire(run_id)
    assert passes() == []
