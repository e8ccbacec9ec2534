"""The WebSocket of a page: it names the runs that it shows, and gets what changes in them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Any, cast

from jupyter_core.utils import ensure_async
from jupyter_server.auth.decorator import ws_authenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from tornado import web, websocket

from atelier.records import RUN_ID
from atelier.server.base import AUTH_RESOURCE
from atelier.server.events import Feed
from atelier.server.outbox import Message, Outbox, run_of

BEAT_S = 20.0
"""A page that hears nothing for some of these knows that the connection is dead (a browser sees no pings)."""

EVERYTHING = "*"
SUBSCRIPTIONS_LIMIT = 1000
MESSAGE_LIMIT_BYTES = 4096


class EventsSocket(WebSocketMixin, websocket.WebSocketHandler, JupyterHandler):
    """Takes ``{"subscribe": id | "*"}``, ``{"unsubscribe": …}`` and ``{"retry": true}``; sends ``{"type", "data"}``.

    An open socket is no activity: it keeps no server alive.
    """

    auth_resource = AUTH_RESOURCE

    @property
    def max_message_size(self) -> int:
        return MESSAGE_LIMIT_BYTES

    @property
    def feed(self) -> Feed:
        return cast(Feed, self.settings["atelier_feed"])

    @ws_authenticated
    async def get(self, *args: Any, **kwargs: Any) -> None:
        allowed = await ensure_async(self.authorizer.is_authorized(self, self.current_user, "read", self.auth_resource))
        if not allowed:
            raise web.HTTPError(403)
        await cast(Awaitable[None], super().get(*args, **kwargs))

    def open(self, *args: str, **kwargs: str) -> None:
        super().open(*args, **kwargs)
        self._subscribed: set[str] = set()
        self._outbox = Outbox()
        self._writer = asyncio.get_running_loop().create_task(self._write())
        self.feed.join(self)

    def on_message(self, text: str | bytes) -> None:
        try:
            told = json.loads(text)
        except ValueError:
            told = None
        if not isinstance(told, dict):
            self.close(1003, "not a JSON object")
            return
        if told.get("retry") is True:
            self.feed.wake()
        if _is_subject(told.get("unsubscribe")):
            self._subscribed.discard(told["unsubscribe"])
        if _is_subject(told.get("subscribe")) and len(self._subscribed) < SUBSCRIPTIONS_LIMIT:
            self._subscribed.add(told["subscribe"])

    def take(self, message: Message) -> None:
        """Queues a message for the page if it is about something that the page shows."""
        if message["type"] in {"service", "resync"} or self._subscribed & {EVERYTHING, run_of(message)}:
            self._outbox.put(message)

    def on_close(self) -> None:
        super().on_close()
        if hasattr(self, "_writer"):
            self.feed.leave(self)
            self._writer.cancel()

    async def _write(self) -> None:
        try:
            while True:
                try:
                    message = await asyncio.wait_for(self._outbox.get(), BEAT_S)
                except TimeoutError:
                    message = {"type": "beat", "data": {}}
                await self.write_message(json.dumps(message))
        except websocket.WebSocketClosedError:
            self.feed.leave(self)


def _is_subject(told: Any) -> bool:
    return isinstance(told, str) and (told == EVERYTHING or RUN_ID.fullmatch(told) is not None)
