"""One HTTP connection to the run service: finds it again when it restarts, and speaks in errors of our tree."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from atelier import wire
from atelier.client.address import Address
from atelier.errors import AtelierError, NotAllowed, Unreachable

RETRY_FOR_S = 5.0
_REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_RESTARTING = frozenset({502, 503, 504})
_TIMEOUT = httpx.Timeout(30.0, connect=5.0, write=60.0)
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "atelier"})


class Transport:
    """Sends requests below the API's prefix.

    A call that may be repeated (GET, HEAD, PUT, DELETE, anything with an ``Idempotency-Key``) is repeated for up to
    5 s while the service is away; every other only if it surely never arrived. Not thread-safe while it reconnects.

    Parameters
    ----------
    locate : callable
        Gives the service's address; called again after a failed connection, and may start a service.
    """

    def __init__(self, locate: Callable[[], Address]) -> None:
        self._locate = locate
        self._address: Address | None = None
        self._http: httpx.Client | None = None
        self._release: Callable[[], object] = lambda: None

    @property
    def where(self) -> str:
        """The place in words, for messages."""
        return self._address.where if self._address else "an unknown place"

    def close(self) -> None:
        """Give the connection back; a later call opens a new one."""
        self._release()
        self._http = None

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        body: Path | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Send one request and read its whole answer; ``body`` is a file that is streamed.

        Raises
        ------
        Unreachable
            No answer: says where it was looked for.
        AtelierError
            Whatever the service answered.
        """

        def send() -> httpx.Response:
            with _content(body) as content:
                response = self._client().request(
                    method, wire.API + path, params=_without_none(params), json=json, content=content, headers=headers
                )
            return _checked(response)

        return self._repeated(send, repeatable=method in _REPEATABLE or "Idempotency-Key" in (headers or {}))

    def json(self, method: str, path: str, **options: Any) -> Any:
        """As `request`, and parse the answer; None for an empty one."""
        response = self.request(method, path, **options)
        return response.json() if response.content else None

    @contextmanager
    def stream(
        self, path: str, *, headers: Mapping[str, str] | None = None, read_timeout_s: float = 60.0
    ) -> Iterator[httpx.Response]:
        """An open GET whose body the caller reads piece by piece; connecting is repeated as in `request`."""
        timeout = httpx.Timeout(read_timeout_s, connect=5.0)

        def connect() -> httpx.Response:
            client = self._client()
            response = client.send(
                client.build_request("GET", wire.API + path, headers=headers, timeout=timeout), stream=True
            )
            if not response.is_success:
                try:
                    response.read()
                finally:
                    response.close()
            return _checked(response)

        response = self._repeated(connect, repeatable=True)
        try:
            yield response
        finally:
            response.close()

    def _client(self) -> httpx.Client:
        if self._http is None:
            self._address = self._locate()
            self._http = _open(self._address)
            self._release = weakref.finalize(self, self._http.close)
        return self._http

    def _repeated(self, send: Callable[[], httpx.Response], *, repeatable: bool) -> httpx.Response:
        deadline = time.monotonic() + RETRY_FOR_S
        pause_s = 0.05
        while True:
            try:
                return send()
            except httpx.TransportError as problem:
                self.close()
                again = repeatable or isinstance(problem, httpx.ConnectError)
                if not again or time.monotonic() > deadline:
                    raise self._unreachable(problem) from problem
            except Unreachable as problem:
                if not (repeatable and "status" in problem.detail) or time.monotonic() > deadline:
                    raise
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.5)

    def _unreachable(self, problem: httpx.TransportError) -> Unreachable:
        words = str(problem) or type(problem).__name__
        return Unreachable(
            "unreachable",
            f"The run service at {self.where} does not answer: {words}.",
            hint="Check that the platform is up ('atelier doctor'), then try again; nothing that runs is harmed.",
            detail={"where": self.where},
        )


def _open(address: Address) -> httpx.Client:
    """A connection pool. TLS certificates (30 ms) are read only for https, a proxy is asked only for other hosts."""
    parts = urlsplit(address.url)
    secure = parts.scheme == "https"
    transport = httpx.HTTPTransport(uds=address.socket_path, verify=False) if address.socket_path else None
    return httpx.Client(
        base_url=address.url,
        headers={"Authorization": f"token {address.token}", "Atelier-Wire": str(wire.WIRE_VERSION)},
        timeout=_TIMEOUT,
        transport=transport,
        verify=secure,
        trust_env=parts.hostname not in _LOOPBACK,
    )


@contextmanager
def _content(body: Path | None) -> Iterator[Any]:
    if body is None:
        yield None
    else:
        with body.open("rb") as file:
            yield file


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_success:
        return response
    if response.is_redirect:
        raise NotAllowed(
            "unauthenticated",
            f"{response.url.copy_with(query=None)} asks for a login.",
            hint="The token is missing or no longer valid; log in again, or give a new one with --token-file.",
        )
    error: AtelierError = wire.error_from(response.status_code, _body(response))
    if response.status_code in _RESTARTING:
        error.detail["status"] = response.status_code
    raise error


def _body(response: httpx.Response) -> Mapping[str, Any] | None:
    try:
        body = response.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _without_none(params: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return {name: value for name, value in params.items() if value is not None} if params else None
