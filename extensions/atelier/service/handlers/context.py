"""What every handler works with, and who calls it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool

from atelier.records import Run
from atelier.service.attempts import AgentCaller, AttemptManager
from atelier.service.callers import Caller, KnownCallers
from atelier.service.feed import Feed
from atelier.service.housekeeping import Housekeeper
from atelier.service.manager import RunManager
from atelier.service.models import ModelManager
from atelier.service.reconciler import Reconciler
from atelier.service.store import Store
from atelier.service.streams import Streams
from atelier.service.turns import Turns
from atelier.settings import Settings
from atelier.storage import BlobStore
from atelier.wire import API

MOST_PREVIEWS = 4
MOST_SUBMITS = 4


@dataclass(frozen=True)
class Service:
    """All parts of one running service.

    ``scratch`` is a private folder for what is being received; ``previews`` bounds how many files are looked into at
    once, and ``turns`` how many bundles are looked into or removed.
    """

    settings: Settings
    store: Store
    blobs: BlobStore
    callers: KnownCallers
    runs: RunManager
    attempts: AttemptManager
    streams: Streams
    models: ModelManager
    feed: Feed
    reconciler: Reconciler
    house: Housekeeper
    scratch: Path
    on_request: Callable[[], None] = lambda: None
    previews: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_PREVIEWS))
    turns: Turns = field(default_factory=lambda: Turns(MOST_SUBMITS))

    def changed(self, run: Run) -> Run:
        """Tell watchers and the reconciler of a run that a user has changed, and bring its ``run.json`` up to date."""
        self.told(run.owner)
        self.attempts.write_record(run.id)
        return run

    def told(self, owner: str) -> None:
        """Tell watchers and the reconciler that an owner's runs have changed."""
        self.feed.touch(owner)
        self.reconciler.wake()


def service_of(request: Request) -> Service:
    """The service that an application serves."""
    return cast(Service, request.app.state.service)


async def authenticate(request: Request) -> None:
    """Learn who calls the API, before any of the body is read; refuses everybody unknown.

    FastAPI reads and parses a body before it asks what a handler depends on.
    """
    service, authorization = service_of(request), request.headers.get("authorization")
    if request.scope["path"].startswith(f"{API}/agent/"):
        request.state.agent = await run_in_threadpool(service.attempts.caller, authorization)
    elif request.scope["path"].startswith(f"{API}/"):
        service.on_request()
        request.state.user = await service.callers.caller(authorization)


def user_of(request: Request) -> Caller:
    """The user who calls, as `authenticate` found."""
    return cast(Caller, request.state.user)


def agent_of(request: Request) -> AgentCaller:
    """The attempt whose agent calls, as `authenticate` found."""
    return cast(AgentCaller, request.state.agent)


Parts = Annotated[Service, Depends(service_of)]
User = Annotated[Caller, Depends(user_of)]
Agent = Annotated[AgentCaller, Depends(agent_of)]
