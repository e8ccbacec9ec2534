"""A limit for the bodies of requests, counted as they come: a length that is declared, or not, proves nothing."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atelier.errors import RefusedInput

MOST_BYTES = 8 << 20
_COUNTED_ELSEWHERE = ("/bundles/", "/uploads/", "/streams/")
"""Parts of paths whose handlers take bytes piece by piece, under limits of their own."""


class BodyLimit:
    """Middleware that stops reading a body at `MOST_BYTES`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or any(part in scope["path"] for part in _COUNTED_ELSEWHERE):
            await self._app(scope, receive, send)
            return
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MOST_BYTES:
                raise RefusedInput("too_large", "The request's body is larger than 8 MiB.", hint="Send less.")
            return message

        await self._app(scope, counted, send)
