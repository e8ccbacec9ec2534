"""A limit for the bodies of requests, counted as they come: a length that is declared, or not, proves nothing."""

from __future__ import annotations

import re

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atelier.naming import MOST_BODY_BYTES
from atelier.wire import API

_COUNTED_ELSEWHERE = re.compile(rf"PUT {API}/(bundles|uploads|agent/streams)/[^/]+")
"""Requests whose handlers take bytes piece by piece, under limits of their own."""


class BodyLimit:
    """Middleware that stops reading a body at `MOST_BODY_BYTES`, with status 413.

    It raises what FastAPI lets through as it is: of any other error while a body is read it makes one of its own.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _COUNTED_ELSEWHERE.fullmatch(f"{scope['method']} {scope['path']}"):
            await self._app(scope, receive, send)
            return
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MOST_BODY_BYTES:
                raise HTTPException(413)
            return message

        await self._app(scope, counted, send)
