"""A small real HTTP server for tests of the client: answers from a script, and remembers what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from atelier.client import Address, Client


@dataclass
class Request:
    """What a client sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    """What is answered; ``cut`` ends the connection after so many bytes of the body."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


class TinyServer:
    """Answers each request by calling ``answer``; on a port of its own."""

    def __init__(self, answer: Callable[[Request], Answer]) -> None:
        self.asked: list[Request] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, self.path, headers, self.rfile.read(length))
                server.asked.append(request)
                told = answer(request)
                self.send_response(told.status)
                self.send_header("Content-Length", str(len(told.body)))
                for name, value in told.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(told.body[: told.cut])
                if told.cut is not None:
                    self.close_connection = True

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _any  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5)


@contextmanager
def tiny_server(answer: Callable[[Request], Answer]) -> Iterator[TinyServer]:
    """A server for the time of a test."""
    server = TinyServer(answer)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def talk(answer: Callable[[Request], Answer]) -> Iterator[tuple[Client, TinyServer]]:
    """A server, and a client that talks to it."""
    with tiny_server(answer) as server, Client.at(Address(server.url, "t0ken")) as client:
        yield client, server
