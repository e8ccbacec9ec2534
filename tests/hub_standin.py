"""A real HTTP server that tells of users and their tokens as a hub does, and whose users can be changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.tiny_server import Answer, Request, TinyServer

SERVICE_TOKEN = "the-service"
SCOPES = ("users:activity!user", "access:servers!server", "access:services!service=atelier")


@dataclass
class HubStandIn:
    """Tokens and users; ``is_down`` makes it answer like a hub in trouble."""

    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    created: dict[str, str] = field(default_factory=dict)
    is_down: bool = False
    url: str = ""

    def user(self, name: str, token: str, *, groups: tuple[str, ...] = (), scopes: tuple[str, ...] = SCOPES) -> str:
        """A user, made now unless known, and a token of his; the token."""
        self.created.setdefault(name, "2026-01-01T00:00:00.000000Z")
        self.tokens[token] = {"kind": "user", "name": name, "groups": list(groups), "scopes": list(scopes)}
        return token

    def answer(self, request: Request) -> Answer:
        """What a hub answers."""
        if self.is_down:
            return Answer(503, b"down")
        token = request.headers.get("authorization", "").removeprefix("token ")
        path = request.path.removeprefix("/hub/api")
        if path == "/user" and token in self.tokens:
            return _json(self.tokens[token])
        if path.startswith("/users/") and token == SERVICE_TOKEN and path[7:] in self.created:
            return _json({"kind": "user", "name": path[7:], "created": self.created[path[7:]]})
        return Answer(404 if token == SERVICE_TOKEN else 403, b'{"status": 403, "message": "no"}')


def _json(model: dict[str, Any]) -> Answer:
    return Answer(200, json.dumps(model).encode(), {"Content-Type": "application/json"})


@contextmanager
def hub_standin() -> Iterator[HubStandIn]:
    """A hub for the time of a test."""
    hub = HubStandIn()
    server = TinyServer(hub.answer)
    hub.url = f"{server.url}/hub/api"
    try:
        yield hub
    finally:
        server.close()
