"""The agent's line to the run service: one small HTTP client over a Unix socket or TCP, from the standard library."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from atelier.errors import AtelierError, InternalError, Unreachable
from atelier.wire import API, WIRE_VERSION, error_from

TIMEOUT_S = 30.0


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("atelier", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self._path)


class Link:
    """Calls of one attempt, authenticated by its run token. Thread-safe; a broken connection is opened anew once.

    Parameters
    ----------
    service : mapping
        ``{"socket": path}`` or ``{"url": "https://host:port"}``.
    token : str
        The run token.
    """

    def __init__(self, service: Mapping[str, str], token: str) -> None:
        self._service = dict(service)
        self._headers = {"Authorization": f"run {token}", "Atelier-Wire": str(WIRE_VERSION)}
        self._connection: http.client.HTTPConnection | None = None
        self._lock = threading.Lock()

    def get(self, path: str) -> dict[str, Any]:
        """The JSON that a GET answers."""
        return self._call("GET", path, None, "application/json")

    def post(self, path: str, body: Mapping[str, Any], /, **query: str | int) -> dict[str, Any]:
        """The JSON that a POST answers.

        Raises
        ------
        Unreachable
            The service is away, or fails at this, for now.
        AtelierError
            The service refuses; ``stale_attempt`` when this attempt is over.
        """
        target = f"{path}?{urlencode(query)}" if query else path
        return self._call("POST", target, json.dumps(body, allow_nan=False).encode(), "application/json")

    def put(self, path: str, data: bytes, **query: str | int) -> dict[str, Any]:
        """The JSON that a PUT of bytes answers."""
        return self._call("PUT", f"{path}?{urlencode(query)}", data, "application/octet-stream")

    def _call(self, method: str, path: str, body: bytes | None, media: str) -> dict[str, Any]:
        with self._lock:
            try:
                status, data = self._exchange(method, path, body, media)
            except (OSError, http.client.HTTPException) as problem:
                self._drop()
                raise Unreachable("service_away", f"The run service does not answer: {problem}.") from problem
        answer = _parsed(data)
        if status >= 400:
            raise _refusal(status, answer)
        return answer or {}

    def _exchange(self, method: str, path: str, body: bytes | None, media: str) -> tuple[int, bytes]:
        reused = self._connection is not None
        try:
            return self._send(method, path, body, media)
        except (OSError, http.client.HTTPException):
            self._drop()
            if not reused:
                raise
            return self._send(method, path, body, media)

    def _send(self, method: str, path: str, body: bytes | None, media: str) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = self._connect()
        self._connection.request(
            method, f"{API}/agent{path}", body=body, headers=self._headers | {"Content-Type": media}
        )
        response = self._connection.getresponse()
        return response.status, response.read()

    def _connect(self) -> http.client.HTTPConnection:
        if "socket" in self._service:
            return _UnixConnection(self._service["socket"])
        parts = urlsplit(self._service["url"])
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _refusal(status: int, answer: dict[str, Any] | None) -> AtelierError:
    """The service's refusal; `Unreachable` where it failed, or where what answered was not the service."""
    told = error_from(status, answer)
    if answer is None or isinstance(told, (InternalError, Unreachable)):
        return Unreachable("service_failing", f"The run service failed (status {status}): {told.message}")
    return told


def _parsed(data: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(data)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None
