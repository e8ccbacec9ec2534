"""``/runs``: submit, list, look, move, cancel, remove, and all that a run has left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import Discriminator, Field, Tag, model_validator

from atelier.errors import NotFound, RefusedInput
from atelier.records import RUN_ID, Artifact, Page, Record, Run, RunSpec, RunState, Source, Whole
from atelier.service.attempts import artifact_key
from atelier.service.boundary import FromUser
from atelier.service.description import sends
from atelier.service.handlers.context import Parts, User
from atelier.service.handlers.downloads import send_blob
from atelier.storage import RunPaths
from atelier.wire import page_position, page_token
from atelier.works.parameters import check_params

router = APIRouter()
SAME_KEY = {"model": Run, "description": "The run that the same Idempotency-Key has made"}


class SubmitBody(FromUser, RunSpec):
    """A `RunSpec`, and where its code came from."""

    source: Source = Source()

    @model_validator(mode="before")
    @classmethod
    def _params(cls, body: Any) -> Any:
        """Values of parameters are judged as everywhere else, before what HTTP can carry is."""
        if isinstance(body, dict) and isinstance(body.get("params"), dict):
            check_params(None, body["params"])
        return body


class CancelBody(Record):
    """``now`` gives the code no time to finish."""

    now: bool = Field(default=False, strict=True)


class BeforeRun(FromUser):
    """Right before another waiting run of the caller, at its priority."""

    before: str = Field(max_length=200)


class AtPriority(FromUser):
    """Where a priority leads; higher goes first."""

    priority: Whole = Field(ge=-100, le=100)


def _kind_of_move(to: object) -> str:
    """Which of its forms a move has, so that what is wrong is told of that one only."""
    if isinstance(to, AtPriority) or (isinstance(to, dict) and "priority" in to):
        return "priority"
    return "before" if isinstance(to, BeforeRun | dict) else "place"


class MoveBody(FromUser):
    """Where a waiting run goes among the caller's own; ``first`` also ends its pause before the next attempt."""

    to: Annotated[
        Annotated[Literal["first", "last"], Tag("place")]
        | Annotated[BeforeRun, Tag("before")]
        | Annotated[AtPriority, Tag("priority")],
        Discriminator(_kind_of_move),
    ]


@router.post("/runs", status_code=201, response_model=Run, responses={200: SAME_KEY})
async def submit(
    body: SubmitBody,
    service: Parts,
    user: User,
    response: Response,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> Run:
    """Submit a run; 200 when the key was seen before, with the run that it made."""
    spec = RunSpec.model_validate(body.model_dump(exclude={"source"}))
    async with service.turns.take(user.owner):
        run, fresh = await run_in_threadpool(service.runs.submit, user, spec, body.source, idempotency_key)
    response.status_code = 201 if fresh else 200
    return await run_in_threadpool(service.changed, run)


@router.get("/runs", response_model=Page)
def list_runs(
    service: Parts,
    user: User,
    state: Annotated[list[RunState] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    page: str | None = None,
) -> Page:
    """The caller's runs, newest first."""
    before = _before(page_position(page)) if page else None
    found = service.store.runs.page(user.owner, states=state or (), limit=limit + 1, before=before)
    items = found[:limit]
    more = page_token(at=items[-1].created_at.isoformat(), id=items[-1].id) if len(found) > limit else None
    return Page(items=items, next=more)


def _before(position: Mapping[str, Any]) -> tuple[datetime, str]:
    try:
        at, run_id = datetime.fromisoformat(position["at"]).astimezone(UTC), position["id"]
        if not RUN_ID.fullmatch(run_id):
            raise ValueError(f"{run_id!r} is no run's id")
    except (KeyError, ValueError, TypeError, OverflowError) as problem:
        raise RefusedInput(
            "bad_page_token", "The page token is not one of ours.", hint="Start at the first page."
        ) from problem
    return at, run_id


@router.get("/runs/{run_id}", response_model=Run)
def show(run_id: str, service: Parts, user: User) -> Run:
    """One run, by its id, a unique prefix, or ``last``."""
    return service.runs.resolve(user.owner, run_id)


@router.post("/runs/{run_id}/cancel", response_model=Run)
def cancel(run_id: str, service: Parts, user: User, body: CancelBody | None = None) -> Run:
    """Ask for the run's end."""
    run = service.runs.resolve(user.owner, run_id)
    return service.changed(service.runs.cancel(run.id, now=body.now if body else False))


@router.post("/runs/{run_id}/move", response_model=Run)
def move(run_id: str, body: MoveBody, service: Parts, user: User) -> Run:
    """Change the place of a waiting run among the caller's own: what others wait for stays as it is."""
    run, order = service.runs.resolve(user.owner, run_id), service.store.order
    match body.to:
        case BeforeRun(before=other):
            order.before(run.id, service.runs.resolve(user.owner, other).id)
        case AtPriority(priority=priority):
            order.prioritise(run.id, priority)
        case "first":
            order.first(run.id)
        case "last":
            order.last(run.id)
    return service.changed(service.store.runs.get(run.id))


@router.put("/runs/{run_id}/pin", response_model=Run)
def pin(run_id: str, service: Parts, user: User) -> Run:
    """Keep the run until its owner removes it; doing it again changes nothing."""
    run = service.runs.resolve(user.owner, run_id)
    return service.changed(service.runs.pin(run.id, pinned=True))


@router.delete("/runs/{run_id}/pin", response_model=Run)
def unpin(run_id: str, service: Parts, user: User) -> Run:
    """Let retention take the run as any other."""
    run = service.runs.resolve(user.owner, run_id)
    return service.changed(service.runs.pin(run.id, pinned=False))


@router.delete("/runs/{run_id}", status_code=204)
async def remove(run_id: str, service: Parts, user: User) -> Response:
    """Forget a final run and what it left; models that it made stay."""
    async with service.turns.take(user.owner):
        run = await run_in_threadpool(service.runs.resolve, user.owner, run_id)
        await run_in_threadpool(service.runs.remove, run)
    service.told(run.owner)
    return Response(status_code=204)


@router.get("/runs/{run_id}/log")
def read_log(
    run_id: str, *, service: Parts, user: User, offset: int = 0, limit: Annotated[int, Query(ge=1, le=1 << 20)] = 65536,
    attempt: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A piece of the log as text; a negative offset counts from its end."""
    run = service.runs.resolve(user.owner, run_id)
    return service.streams.page(run, attempt=attempt, offset=offset, limit=limit)


@router.get("/runs/{run_id}/metrics", response_model=None)
def read_metrics(run_id: str, service: Parts, user: User, name: str | None = None, full: bool = False) -> Response:
    """All curves, thinned out; or every point of one metric with ``name`` and ``full``."""
    run = service.runs.resolve(user.owner, run_id)
    if full and name is not None:
        return StreamingResponse(_points_json(service.streams.points(run, name)), media_type="application/json")
    return JSONResponse({"names": service.store.streams.curves(run.id, name)})  # a dict would be walked value by value


def _points_json(points: Iterator[list[Any]]) -> Iterator[bytes]:
    """``{"points": […]}`` as it is read, a thousand points a piece."""
    yield b'{"points": ['
    between = ""
    while some := list(islice(points, 1000)):
        yield (between + json.dumps(some, allow_nan=False)[1:-1]).encode()
        between = ", "
    yield b"]}"


@router.get("/runs/{run_id}/artifacts", response_model=Page)
def list_artifacts(run_id: str, service: Parts, user: User) -> Page:
    """What the run left."""
    run = service.runs.resolve(user.owner, run_id)
    return Page(items=service.store.artifacts.of_run(run.id))


@router.get("/runs/{run_id}/artifacts/{path:path}", **sends("application/octet-stream"))
def read_artifact(run_id: str, path: str, request: Request, service: Parts, user: User) -> StreamingResponse:
    """One artifact's bytes."""
    run = service.runs.resolve(user.owner, run_id)
    artifact = service.store.artifacts.get(run.id, path)
    try:
        return _send_artifact(artifact, run.id, request, service)
    except FileNotFoundError:  # it was left anew since the row was read
        return _send_artifact(service.store.artifacts.get(run.id, path), run.id, request, service)


def _send_artifact(artifact: Artifact, run_id: str, request: Request, service: Parts) -> StreamingResponse:
    key = artifact_key(run_id, artifact.attempt, artifact)
    return send_blob(request, service.blobs, key, artifact.path.rsplit("/", 1)[-1])


@router.get("/runs/{run_id}/notebook", **sends("application/x-ipynb+json"))
def read_notebook(run_id: str, request: Request, service: Parts, user: User) -> StreamingResponse:
    """The executed notebook as it is now."""
    run = service.runs.resolve(user.owner, run_id)
    key = RunPaths(run.id).notebook
    if not service.blobs.exists(key):
        raise NotFound(
            "no_notebook", f"Run {run.id} has no executed notebook yet.", hint="Wait until its first cell has run."
        )
    name = run.spec.work.target.rsplit("/", 1)[-1]
    return send_blob(request, service.blobs, key, name, media="application/x-ipynb+json")


@router.get("/runs/{run_id}/bundle", **sends("application/zstd"))
def read_bundle(run_id: str, request: Request, service: Parts, user: User) -> StreamingResponse:
    """The code as it was submitted (tar.zst)."""
    run = service.runs.resolve(user.owner, run_id)
    return send_blob(request, service.blobs, RunPaths(run.id).bundle, f"{run.id}.tar.zst", media="application/zstd")


@router.get("/runs/{run_id}/events", **sends("text/event-stream", ranges=False))
async def watch_run(
    run_id: str, service: Parts, user: User, last_event_id: Annotated[str | None, Header()] = None
) -> StreamingResponse:
    """Changes of one run as server-sent events, from the present state on."""
    run = await asyncio.to_thread(service.runs.resolve, user.owner, run_id)
    return _stream(service, user, run.id, last_event_id)


@router.get("/events", **sends("text/event-stream", ranges=False))
async def watch(service: Parts, user: User, last_event_id: Annotated[str | None, Header()] = None) -> StreamingResponse:
    """Changes of all the caller's runs as server-sent events."""
    return _stream(service, user, None, last_event_id)


def _stream(service: Parts, user: User, run_id: str | None, last_event_id: str | None) -> StreamingResponse:
    after = int(last_event_id[:18]) if last_event_id and last_event_id.isdecimal() else None
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    body = service.feed.watch(user.owner, run_id, after)
    return StreamingResponse(body, media_type="text/event-stream", headers=headers)
