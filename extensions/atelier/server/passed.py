"""Handlers that pass requests through to the run service, bodies streamed both ways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from http.client import responses
from typing import Any, cast

import httpx
from tornado import web
from tornado.http1connection import HTTP1Connection
from tornado.iostream import StreamClosedError

from atelier.errors import RefusedInput
from atelier.quantities import format_bytes
from atelier.server.base import AtelierHandler
from atelier.server.link import unreachable
from atelier.server.passing import asked_headers, body_limit_bytes, checked_path, told_headers

CHUNKS_WAITING = 4
WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


@web.stream_request_body
class ServiceHandler(AtelierHandler):
    """Any resource of the service below ``/api/v1``, with this user server's token."""

    _asked: asyncio.Task[httpx.Response] | None = None
    _read_whole = False

    async def prepare(self) -> None:  # type: ignore[override]  # as in APIHandler itself
        await super().prepare()
        path = checked_path(self.request.path.split("/atelier/api/v1/", 1)[1])
        query = f"?{self.request.query}" if self.request.query else ""
        limit_bytes = self._limit_body(path)
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue(CHUNKS_WAITING)
        content = self._body(limit_bytes) if self.request.method in WITH_BODY else None
        asked = self.link.open(
            str(self.request.method), path + query, headers=asked_headers(self.request.headers), content=content
        )
        self._asked = asyncio.create_task(asked)

    async def data_received(self, chunk: bytes) -> None:
        await self._hand_on(chunk)

    @web.authenticated
    async def get(self, _path: str) -> None:
        self._read_whole = True
        await self._answer()

    head = delete = get

    @web.authenticated
    async def post(self, _path: str) -> None:
        self._read_whole = True
        await self._hand_on(None)
        await self._answer()

    put = patch = post

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        if not self._read_whole:
            # tornado ends the connection after an answer before the end of a request, also of one without a body;
            # neither a client nor the proxy with its pool may send the next request there
            self.set_header("Connection", "close")
        super().write_error(status_code, **kwargs)

    def on_connection_close(self) -> None:
        super().on_connection_close()
        if self._asked is not None:
            self._asked.cancel()

    def _limit_body(self, path: str) -> int:
        limit_bytes = body_limit_bytes(path, self.settings["atelier_largest_body"])
        if int(self.request.headers.get("Content-Length", 0)) > limit_bytes:
            raise _too_large(limit_bytes)
        cast(HTTP1Connection, self.request.connection).set_max_body_size(limit_bytes)
        return limit_bytes

    async def _body(self, limit_bytes: int) -> AsyncIterator[bytes]:
        sent_bytes = 0
        while (chunk := await self._chunks.get()) is not None:
            sent_bytes += len(chunk)
            if sent_bytes > limit_bytes:
                raise _too_large(limit_bytes)
            yield chunk

    async def _hand_on(self, chunk: bytes | None) -> None:
        """Gives a piece of the body to the request, unless the service has answered before its end."""
        if self._asked is None or self._asked.done():
            return
        put = asyncio.ensure_future(self._chunks.put(chunk))
        await asyncio.wait({put, self._asked}, return_when=asyncio.FIRST_COMPLETED)
        put.cancel()

    async def _answer(self) -> None:
        assert self._asked is not None
        await asyncio.wait({self._asked})
        if self._asked.cancelled():
            return  # the page went away
        response = self._asked.result()
        try:
            await self._stream(response)
        finally:
            await response.aclose()

    async def _stream(self, response: httpx.Response) -> None:
        if 300 <= response.status_code < 400 and response.status_code != 304:
            raise unreachable(ValueError(f"status {response.status_code}"))
        self.set_status(response.status_code, responses.get(response.status_code, "Unknown"))
        kept = told_headers(response.headers.multi_items(), status=response.status_code)
        for name, value in kept.items():
            self.set_header(name, value)
        if response.status_code == 204:
            self.clear_header("Content-Type")
        try:
            async for chunk in response.aiter_raw(2**18):
                self.write(chunk)
                await self.flush()
        except httpx.TransportError as problem:
            self._break_off(problem)
            return
        except StreamClosedError:
            return
        self.finish(set_content_type=kept["Content-Type"])

    def _break_off(self, problem: httpx.TransportError) -> None:
        """An answer that stopped in the middle must not look whole."""
        if not self._headers_written:
            raise unreachable(problem) from problem
        self.log.warning("The run service stopped in the middle of an answer: %s", type(problem).__name__)
        cast(HTTP1Connection, self.request.connection).stream.close()


def _too_large(limit_bytes: int) -> RefusedInput:
    return RefusedInput(
        "too_large",
        f"The body is larger than {format_bytes(limit_bytes)}.",
        hint="Submit from a terminal, or send less.",
    )
