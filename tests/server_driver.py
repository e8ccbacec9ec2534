"""Drives a real Jupyter server that has the extension loaded, over a real run service."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from tests.cli_driver import wait_for

TOKEN = "a-token-of-the-tests"
BASE = "/base/user/ann@example.org/"


@dataclass(frozen=True)
class JupyterServer:
    """A running server: its address, its root folder, and requests with or without its token."""

    url: str
    root: Path
    log: Path

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A request with the token; ``path`` is below the base URL."""
        headers = {"Authorization": f"token {TOKEN}", **options.pop("headers", {})}
        return self.ask_freely(method, path, headers=headers, **options)

    def ask_freely(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A request with nothing but what is given."""
        with httpx.Client(trust_env=False, timeout=30) as client:
            return client.request(method, self.url + path, **options)

    def json(self, method: str, path: str, body: Any = None, *, status: int = 200) -> Any:
        """The JSON of an answer that must have this status."""
        answer = self.ask(method, path, json=body) if body is not None else self.ask(method, path)
        assert answer.status_code == status, answer.text
        return answer.json()

    def last_activity(self) -> str:
        """When the server thinks that its user was last active; asking is no activity."""
        return str(self.json("GET", "api/status")["last_activity"])


@contextmanager
def jupyter_server(environ: Mapping[str, str], *options: str) -> Iterator[JupyterServer]:
    """A server with a root folder and settings of its own, on a port of its own."""
    folder = Path(tempfile.mkdtemp(prefix="jup-"))
    root = folder / "root"
    for name in ("root", "home", "config", "data", "runtime"):
        (folder / name).mkdir()
    own = {
        "HOME": str(folder / "home"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
    }
    port = _free_port()
    command = [
        sys.executable, "-m", "jupyter_server", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root",
        "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}", f"--ServerApp.base_url={BASE}",
        f"--ServerApp.root_dir={root}", "--ServerApp.jpserver_extensions={'atelier.server': True}", *options,
    ]  # fmt: skip
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env={**environ, **own}, cwd=root, stdout=output, stderr=output)
    server = JupyterServer(f"http://127.0.0.1:{port}{BASE}", root, log)
    try:
        wait_for(lambda: _answers(server, process), f"the Jupyter server; {log.read_text()}", timeout_s=60)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=20)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(server: JupyterServer, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, server.log.read_text()
    try:
        return server.ask_freely("GET", "api").status_code == 200
    except httpx.TransportError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Page:
    """The WebSocket of a page in a browser."""

    def __init__(self, connection: WebSocketClientConnection) -> None:
        self._connection = connection
        self.seen: list[dict[str, Any]] = []

    @classmethod
    async def open(cls, server: JupyterServer, *, token: str | None = TOKEN, **headers: str) -> Page:
        """Connects as a page does; ``headers`` are sent along."""
        query = f"?token={token}" if token else ""
        url = server.url.replace("http", "ws", 1) + f"atelier/events{query}"
        return cls(await websocket_connect(HTTPRequest(url, headers=headers)))

    async def send(self, **message: Any) -> None:
        await self.send_text(json.dumps(message))

    async def send_text(self, text: str) -> None:
        await self._connection.write_message(text)

    async def is_closed_by_server(self, timeout_s: float = 5) -> bool:
        """Whether the server closes the socket."""
        async with asyncio.timeout(timeout_s):
            while await self._connection.read_message() is not None:
                pass
        return self._connection.close_code == 1003

    async def until(self, kind: str, timeout_s: float = 30, **wanted: Any) -> dict[str, Any]:
        """The data of the next message of a kind whose data holds these values."""
        async with asyncio.timeout(timeout_s):
            while True:
                text = await self._connection.read_message()
                assert text is not None, f"the server closed the socket; seen: {self.kinds}"
                message = json.loads(text)
                self.seen.append(message)
                data: dict[str, Any] = message["data"]
                if message["type"] == kind and all(data.get(name) == value for name, value in wanted.items()):
                    return data

    @property
    def kinds(self) -> list[str]:
        return [message["type"] for message in self.seen]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes as a browser does, and reads on until the server has answered that."""
        was_open = self._connection.close_code is None
        self._connection.close()
        async with asyncio.timeout(10):
            while was_open and await self._connection.read_message() is not None:
                pass
