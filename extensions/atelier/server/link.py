"""The one road from the user server to the run service: an HTTP client that follows the service when it moves."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Mapping
from typing import Any

import httpx

from atelier.client.address import Address
from atelier.errors import AtelierError, InternalError, Unreachable
from atelier.server.endpoint import find_endpoint
from atelier.wire import API, WIRE_VERSION, error_from

ANSWER_S = 60.0
CONNECT_S = 5.0
SMALL_ANSWER_BYTES = 32 * 2**20


class ServiceLink:
    """Sends requests to the run service with this user server's token.

    The address is looked up at each request, and the client is made anew when it changed: a restarted embedded
    service has another token and another socket. Used on one event loop only.

    Parameters
    ----------
    find : callable
        Gives the address, or raises Unreachable.
    """

    def __init__(self, find: Callable[[], Address] = find_endpoint) -> None:
        self._find = find
        self._address: Address | None = None
        self._client: httpx.AsyncClient | None = None

    async def open(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: AsyncIterable[bytes] | bytes | None = None,
        read_s: float | None = ANSWER_S,
    ) -> httpx.Response:
        """Sends a request and returns the answer with its body unread; the caller closes it.

        Parameters
        ----------
        path : str
            Below ``/api/v1``, percent-encoded, with its query, e.g. ``"/runs?limit=20"``.
        read_s : float or None
            Longest silence within the answer; None is no limit (event streams).

        Raises
        ------
        Unreachable
            ``service_not_running`` or ``service_unreachable``.
        """
        address = self._find()
        client = await self._client_of(address)
        timeout = httpx.Timeout(connect=CONNECT_S, read=read_s, write=ANSWER_S, pool=CONNECT_S)
        sent = {"Authorization": f"token {address.token}", "Atelier-Wire": str(WIRE_VERSION), **(headers or {})}
        request = client.build_request(method, address.url + API + path, headers=sent, content=content, timeout=timeout)
        try:
            return await client.send(request, stream=True)
        except httpx.TransportError as problem:
            raise unreachable(problem) from problem

    async def json(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON that the service answers to a small request.

        Raises
        ------
        AtelierError
            What the service told, or Unreachable.
        """
        headers = {"Accept": "application/json"}
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = httpx.Request("POST", "http://localhost", json=body).content
        response = await self.open(method, path, headers=headers, content=content)
        try:
            return await read_json(response)
        finally:
            await response.aclose()

    async def close(self) -> None:
        """Ends all connections; a later request opens new ones."""
        client, self._client, self._address = self._client, None, None
        if client is not None:
            await client.aclose()

    async def _client_of(self, address: Address) -> httpx.AsyncClient:
        if self._client is None or address != self._address:
            await self.close()
            transport = httpx.AsyncHTTPTransport(uds=address.socket_path, limits=httpx.Limits(max_connections=64))
            self._client = httpx.AsyncClient(transport=transport, trust_env=False, follow_redirects=False)
            self._address = address
        return self._client


async def read_json(response: httpx.Response) -> Any:
    """The JSON of an answer of bounded size; raises the error that it tells, or Unreachable when it breaks off."""
    body = bytearray()
    try:
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > SMALL_ANSWER_BYTES:
                raise InternalError("answer_too_large", "The service's answer is larger than it should be.")
    except httpx.TransportError as problem:
        raise unreachable(problem) from problem
    told = _loads(bytes(body))
    if response.status_code >= 300:
        raise error_from(response.status_code, told if isinstance(told, dict) else None)
    if told is None and body:
        raise InternalError("not_json", "The service's answer is not JSON.", hint="Look at the service's log.")
    return told


def unreachable(problem: Exception) -> AtelierError:
    """The error for a service that does not answer, or stopped in the middle."""
    return Unreachable(
        "service_unreachable",
        "The run service does not answer.",
        hint="Runs go on without it. This page tries again by itself.",
        detail={"cause": type(problem).__name__},
    )


def _loads(body: bytes) -> Any:
    try:
        return httpx.Response(200, content=body).json() if body else None
    except ValueError:
        return None
