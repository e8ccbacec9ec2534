"""Whatever a page sends to the server extension, it is answered or refused, and never with an error of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.cli_driver import Terminal, notebook, terminal
from tests.server_driver import TOKEN, JupyterServer, jupyter_server

DEEP = b"[" * 100_000
BODIES = (
    b"",
    b"{",
    b"[1]",
    b"null",
    b'"x"',
    b"\xff",
    DEEP,
    b'{"path":' * 2000,
    b'{"a": NaN}',
    b'{"\\ud800": 1}',
    b"{}",
)
PATHS: tuple[Any, ...] = (
    None, 5, [], {}, "", ".", "..", "/", "/etc/passwd", "a\0b", "\ud800", "x" * 300, "y/" * 3000, "work", "loop",
    "loop/x", "no.ipynb", "work/bad.ipynb", "work/train.ipynb/x", "~nobody/x.py",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    5, -1, 10**30, 1.5, True, "", "x", "\ud800", "\0", [], [None], {}, {"a": 1}, {"": {}}, {"x" * 300: [[[]]]}
)  # fmt: skip
SUBMITS = ("params", "image", "machine", "retries", "name", "sources", "unknown")
COPIES = ("run", "artifact", "beside", "name", "replace", "unknown")
QUERIES = ("path", "limit", "page", "rows", "columns", "budget_bytes", "plan_only")
ODD = (
    "",
    "..",
    "%00",
    "%ff",
    "%F0%9F%99%82",
    "x" * 300,
    "loop",
    "a%2Fb",
    "-1",
    "1e9",
    "9" * 40,
    "work",
    "work/bad.ipynb",
)


@pytest.fixture(scope="module")
def place() -> Iterator[Terminal]:
    with terminal() as opened:
        yield opened


@pytest.fixture(scope="module")
def server(place: Terminal) -> Iterator[JupyterServer]:
    with jupyter_server(place.environ) as running:
        (running.root / "work").mkdir()
        (running.root / "work/train.ipynb").write_text(notebook("print(x)", parameters="x = 1"))
        (running.root / "work/bad.ipynb").write_bytes(b"[" * 5000)
        (running.root / "loop").symlink_to("loop")
        running.json("POST", "atelier/submit", {"path": "work/train.ipynb"}, status=201)  # starts a run service
        yield running


@pytest.fixture(scope="module")
def page(server: JupyterServer) -> Iterator[httpx.Client]:
    """Asks with the token, always over the same few connections."""
    headers = {"Authorization": f"token {TOKEN}"}
    with httpx.Client(base_url=server.url, headers=headers, trust_env=False, timeout=30) as client:
        yield client


def assert_told(answer: httpx.Response, what: object) -> None:
    """It is no error of ours, and an error has a code and words."""
    assert answer.status_code < 500, f"{what!r:.300}: {answer.status_code} {answer.text[:500]}"
    if answer.status_code >= 400 and answer.request.method != "HEAD":
        told = answer.json()["error"]
        assert told["code"], what
        assert told["message"], what


def post(page: httpx.Client, path: str, body: Any) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    assert_told(page.post(path, content=content), body)


@pytest.mark.parametrize("path", ["atelier/submit", "atelier/copy-back", "atelier/questions/q", "atelier/api/v1/runs"])
def test_bodies(page: httpx.Client, path: str) -> None:
    for body in BODIES:
        post(page, path, body)


def test_submits(page: httpx.Client) -> None:
    """None of them is one that can be run: each names no work, or is wrong besides."""
    for path in PATHS:
        post(page, "atelier/submit", {"path": path})
    for field in SUBMITS:
        for value in VALUES:
            post(page, "atelier/submit", {"path": "work/train.ipynb", "params": {"no": 1}, field: value})


def test_copies(page: httpx.Client) -> None:
    order = {"run": "r-aaaaaaaaaa", "artifact": "out.txt", "beside": "work/train.ipynb", "name": "out.txt"}
    for field in COPIES:
        for value in (*VALUES, *PATHS):
            post(page, "atelier/copy-back", order | {field: value})


def test_answers(page: httpx.Client) -> None:
    for value in VALUES:
        post(page, "atelier/questions/nobody-asked", {"value": value})


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_addresses(page: httpx.Client, method: str) -> None:
    for place in (
        "",
        "x",
        "events",
        "submit",
        "api/v1/",
        "api/v1/runs",
        "api/v1/roots/home/list",
        "api/v1/roots/home/x",
    ):
        for odd in ("", *ODD):
            address = f"atelier/{place}/{odd}" if odd else f"atelier/{place}"
            answer = page.request(method, address, headers={"Content-Type": "application/json"})
            assert answer.status_code < 500, f"{method} {address}: {answer.text[:300]}"


@pytest.mark.parametrize("what", ["list", "preview", "file"])
def test_the_home(page: httpx.Client, what: str) -> None:
    for name in QUERIES:
        for odd in ODD:
            given = "" if name == "path" else "path=work/train.ipynb&"
            answer = page.get(f"atelier/api/v1/roots/home/{what}?{given}{name}={odd}")
            assert_told(answer, (what, name, odd))
