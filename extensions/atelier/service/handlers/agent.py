"""``/agent``: what agents ask and tell; each call is bound to one attempt by its run token."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field

from atelier.errors import RefusedInput
from atelier.naming import MOST_WARNINGS
from atelier.records import MOST_FILE_BYTES, Environment, ModelFile, ModelVersion, Progress, Real, Whole
from atelier.service.attempts import FileReport, FinishReport
from atelier.service.boundary import FromAgent, RanS
from atelier.service.chunks import MOST_BYTES
from atelier.service.description import TAKES_BYTES
from atelier.service.handlers.context import Agent, Parts
from atelier.service.store.streams import STREAMS

router = APIRouter(prefix="/agent")
MOST_STEPS = 9 * 10**18
"""What the database takes, as a number that the description can tell exactly; the recorder refuses more."""

Step = Annotated[int, Query(ge=0, le=MOST_STEPS)]


class StartReport(FromAgent):
    """What the work runs in."""

    environment: Environment | None = None
    lock: str = ""


class Heartbeat(FromAgent):
    """A sign of life, with what is new."""

    progress: Progress | None = None
    usage: dict[str, Real] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list, max_length=MOST_WARNINGS)
    code_warnings: list[str] = Field(default_factory=list, max_length=MOST_WARNINGS)
    ran_s: RanS = None


class WorkEnd(FromAgent):
    """The end of the work."""

    ran_s: RanS = None


class CheckpointReport(FromAgent):
    """A checkpoint whose files are stored."""

    step: Whole = Field(ge=0, le=MOST_STEPS)
    copy_number: Whole = Field(default=1, ge=1, lt=2**31)
    files: list[FileReport]


class ModelReport(FromAgent):
    """A model that the run has made, its files uploaded."""

    name: str
    card: dict[str, Any]
    files: list[ModelFile]


@router.get("/orders")
def orders(service: Parts, agent: Agent) -> dict[str, Any]:
    """All that the agent needs for its attempt."""
    return service.attempts.orders(agent)


@router.get("/delivery")
def delivery(service: Parts, agent: Agent) -> dict[str, Any]:
    """What an agent needs that brings in what a dead one left."""
    return service.attempts.delivery(agent)


@router.post("/started")
def started(body: StartReport, service: Parts, agent: Agent) -> dict[str, Any]:
    """The work begins."""
    environment = body.environment.model_dump(mode="json") if body.environment else None
    service.attempts.started(agent, environment, body.lock)
    return {}


@router.post("/heartbeat")
def heartbeat(body: Heartbeat, service: Parts, agent: Agent) -> dict[str, Any]:
    """A sign of life; answers the order to stop, if there is one, and the seconds there are for it."""
    progress = body.progress.model_dump(mode="json") if body.progress else None
    order = service.attempts.heartbeat(
        agent, progress, body.usage, body.warnings, code_warnings=body.code_warnings, ran_s=body.ran_s
    )
    return {"stop": order[0], "grace_s": order[1]} if order else {"stop": None}


@router.put("/streams/{stream}", openapi_extra=TAKES_BYTES)
async def append(
    stream: str, offset: Annotated[int, Query(ge=0)], request: Request, service: Parts, agent: Agent
) -> dict[str, int]:
    """Bytes of the log or the metrics from ``offset`` on; answers the size that is stored."""
    if stream not in STREAMS:
        raise RefusedInput(
            "unknown_stream", f"There is no stream {stream[:50]!r}.", hint=f"Known: {', '.join(STREAMS)}."
        )
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > 4 * MOST_BYTES:
            raise RefusedInput("too_large", "A piece of a stream has at most 4 MiB.", hint="Send it in parts.")
    return {"size": await asyncio.to_thread(service.attempts.append, agent, stream, offset, bytes(data))}


@router.post("/artifacts/place")
def place(body: FileReport, service: Parts, agent: Agent) -> dict[str, str]:
    """Where an artifact's bytes go."""
    return {"url": service.attempts.place(agent, body)}


@router.post("/artifacts")
def keep(body: FileReport, service: Parts, agent: Agent) -> dict[str, Any]:
    """Note an artifact whose bytes are stored."""
    return service.attempts.keep(agent, body).model_dump(mode="json")


@router.post("/checkpoints/place")
def place_checkpoint(
    step: Step,
    path: str,
    *,
    service: Parts,
    agent: Agent,
    copy_number: Annotated[int, Query(ge=1, lt=2**31)] = 1,
    size_bytes: Annotated[int, Query(ge=0, le=MOST_FILE_BYTES)] = 0,
) -> dict[str, str]:
    """Where a checkpoint's file goes; ``size_bytes`` are those of the whole checkpoint."""
    url = service.attempts.place_checkpoint(agent, step, path, copy=copy_number, size_bytes=size_bytes)
    return {"url": url}


@router.post("/checkpoints")
def keep_checkpoint(body: CheckpointReport, service: Parts, agent: Agent) -> dict[str, Any]:
    """Publish a checkpoint whose files are all stored."""
    service.attempts.keep_checkpoint(agent, body.step, body.files, copy=body.copy_number)
    return {}


@router.post("/uploads/place")
def place_upload(body: ModelFile, service: Parts, agent: Agent) -> dict[str, str | None]:
    """Where a file of a model package goes; null when it is there already."""
    return {"url": service.attempts.place_upload(agent, body)}


@router.post("/models", response_model=ModelVersion)
def publish(body: ModelReport, service: Parts, agent: Agent) -> ModelVersion:
    """Register a model that the run has made."""
    return service.attempts.publish(agent, body.name, body.card, body.files)


@router.post("/ended")
def ended(body: WorkEnd, service: Parts, agent: Agent) -> dict[str, Any]:
    """The work has ended; what it left is being delivered, however long that takes."""
    service.attempts.ended(agent, body.ran_s)
    return {}


@router.post("/finish")
async def finish(body: FinishReport, service: Parts, agent: Agent) -> dict[str, str]:
    """The attempt's end."""
    run = await asyncio.to_thread(service.attempts.finish, agent, body)
    service.reconciler.attempt_ended(agent.run_id, agent.n)
    return {"state": run.state.value}
