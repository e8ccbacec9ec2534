"""The HTTP application of the run service: its resources, its errors, its limits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from fastapi import FastAPI, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from sqlalchemy.exc import DatabaseError
from starlette.exceptions import HTTPException
from starlette.routing import Route

from atelier.errors import AtelierError, InternalError, NotFound, RefusedInput
from atelier.naming import MOST_BODY_BYTES
from atelier.service.bodies import BodyLimit
from atelier.service.description import AGENT, ERRORS, USER
from atelier.service.faults import in_words
from atelier.service.handlers import agent, catalog, leases, models, roots, runs, uploads
from atelier.service.handlers.context import Service, authenticate
from atelier.service.troubles import disk_full, trouble_of
from atelier.wire import API, PREFIX, WIRE_VERSION, error_body, status_of

log = logging.getLogger("atelier.service")

ROUTERS = (
    *((resource.router, USER) for resource in (catalog, uploads, runs, models, roots, leases)),
    (agent.router, AGENT),
)
"""The resources, and who may call them."""


def create_app(service: Service) -> FastAPI:
    """An application over the parts of a service; its lifespan runs the reconciler and the housekeeper."""
    app = FastAPI(
        title="Atelier run service",
        version="1",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        redirect_slashes=False,
    )
    app.state.service = service
    for router, caller in ROUTERS:
        app.include_router(router, prefix=API, dependencies=[Security(caller)], responses=ERRORS)
    app.add_middleware(BodyLimit)  # within the guard, which would wrap its error in a group
    app.middleware("http")(_guard)
    app.add_exception_handler(AtelierError, _atelier_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(OSError, _trouble)
    app.add_exception_handler(DatabaseError, _trouble)
    app.add_exception_handler(Exception, _defect)
    app.add_api_route(f"{PREFIX}/healthz", _healthz, include_in_schema=False)
    app.add_api_route(f"{PREFIX}/readyz", _readyz, include_in_schema=False)
    app.add_api_route(f"{PREFIX}/metrics", _metrics, include_in_schema=False)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    service.feed.bind(asyncio.get_running_loop())
    await service.reconciler.sweep()
    loops = [
        asyncio.create_task(service.reconciler.run(), name="reconciler"),
        asyncio.create_task(service.house.run(), name="housekeeper"),
    ]
    try:
        yield
    finally:
        service.feed.close()
        for loop in loops:
            loop.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await loop
        service.store.close()


async def _guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    refusal = _refusal(request)
    if refusal is not None:
        return await _atelier_error(request, refusal)
    try:
        await authenticate(request)
    except AtelierError as problem:
        return await _atelier_error(request, problem)
    except (OSError, DatabaseError) as problem:
        return await _trouble(request, problem)
    is_json = request.headers.get("content-type", "").startswith("application/json")
    length = request.headers.get("content-length", "0")
    if is_json and length.isdecimal() and int(length[:18]) > MOST_BODY_BYTES:
        return await _http_error(request, HTTPException(413))
    return await call_next(request)


def _refusal(request: Request) -> AtelierError | None:
    """Why no handler could take a request, whoever sends it."""
    wire = request.headers.get("atelier-wire")
    if wire is not None and wire not in {str(WIRE_VERSION), str(WIRE_VERSION - 1)}:
        log.warning("Refused a caller of wire version %r at %s.", wire[:10], request.url.path[:200])
        return RefusedInput(
            "wire_version",
            f"This service speaks wire version {WIRE_VERSION}, and the caller {wire[:10]}.",
            hint="Install matching versions; after an upgrade, start the platform again.",
        )
    if "\0" in request.url.path or "%00" in request.url.query:
        return RefusedInput("zero_byte", "The address holds a zero byte, and no name has one.", hint="Leave it out.")
    if request.headers.get("upgrade", "").lower() == "websocket":  # else events would go to one who waits for an answer
        return NotFound("no_websocket", "This service has no WebSockets.", hint="Read /events as server-sent events.")
    return None


async def _atelier_error(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, AtelierError)
    return JSONResponse(error_body(problem), status_code=status_of(problem))


async def _invalid_request(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, RequestValidationError)
    found = problem.errors()
    faults = [{"at": ".".join(str(part) for part in fault["loc"]), "problem": fault["msg"]} for fault in found]
    error = RefusedInput(
        "bad_request",
        f"The request is not as it must be: {in_words(found)}",
        hint="Mend what is named above.",
        detail={"faults": faults[:50]},
    )
    return await _atelier_error(request, error)


async def _http_error(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)
    if problem.status_code == 404:
        return await _atelier_error(
            request,
            NotFound("no_such_page", f"There is nothing at {request.url.path[:200]}.", hint="See openapi.json."),
        )
    if problem.status_code == 413:
        return await _atelier_error(
            request, RefusedInput("too_large", "The request's body is larger than 8 MiB.", hint="Send less.")
        )
    error = RefusedInput("http_error", str(problem.detail))
    allowed = _methods_of(request.url.path) if problem.status_code == 405 else ""
    headers = {"Allow": allowed} if allowed else problem.headers
    return JSONResponse(error_body(error), status_code=problem.status_code, headers=headers)


def _methods_of(path: str) -> str:
    """All methods that a path has; of several routes Starlette tells those of the first one."""
    routes = (route for router, _ in ROUTERS for route in router.routes if isinstance(route, Route))
    found = [route.methods or set() for route in routes if route.path_regex.match(path.removeprefix(API))]
    return ", ".join(sorted(set().union(*found)))


async def _trouble(request: Request, problem: Exception) -> Response:
    """The answer to a full disk or a damaged database, told in a line of the log; all else is a defect."""
    service: Service = request.app.state.service
    told = await asyncio.to_thread(trouble_of, problem, service.store, service.blobs)
    if told is None:
        raise problem
    cause = problem.orig if isinstance(problem, DatabaseError) else problem
    log.error("%s %s: %s (%s)", request.method, request.url.path[:200], told.message, cause)
    return await _atelier_error(request, told)


async def _defect(request: Request, problem: Exception) -> Response:
    """The answer to a defect of ours; uvicorn logs its traceback, and ends the connection."""
    error = InternalError("internal", "The service failed at this; its log says why.", hint="Try again.")
    return JSONResponse(error_body(error), status_code=status_of(error), headers={"Connection": "close"})


async def _healthz() -> Response:
    return PlainTextResponse("ok")


async def _readyz(request: Request) -> Response:
    service: Service = request.app.state.service
    store = service.store
    trouble: AtelierError | None = store.database.damage
    trouble = trouble or await asyncio.to_thread(disk_full, store, service.blobs)
    try:
        if trouble is None:
            await asyncio.to_thread(store.database.try_to_write)
    except (OSError, DatabaseError) as problem:
        trouble = await asyncio.to_thread(trouble_of, problem, store, service.blobs)
        if trouble is None:
            raise
    return PlainTextResponse("ok") if trouble is None else JSONResponse(error_body(trouble), status_code=503)


async def _metrics(request: Request) -> Response:
    service: Service = request.app.state.service
    counts = await asyncio.to_thread(service.store.runs.counts)
    lines = ["# HELP atelier_runs Runs by state.", "# TYPE atelier_runs gauge"]
    lines += [f'atelier_runs{{state="{state.value}"}} {count}' for state, count in sorted(counts.items())]
    return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")
