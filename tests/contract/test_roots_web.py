"""A web root against servers that mean harm: redirects, forged links, no ranges, forbidden addresses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from atelier.data.previews import preview
from atelier.data.roots import catalog_root, list_folder
from atelier.errors import NotAllowed, Unreachable
from atelier.settings import Root

Answer = tuple[int, dict[str, str], bytes]


@contextmanager
def serving(answer: Callable[[str], Answer], asked: list[str]) -> Iterator[int]:
    """A server on loopback that answers by a function of the path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            status, headers, body = answer(self.path)
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *args: object) -> None:
            """Nothing."""

    class QuietServer(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Nothing: clients here hang up in the middle, and mean it."""

    server = QuietServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def web_root(port: int, path: str = "/base"):
    return catalog_root(Root(name="web", url=f"http://127.0.0.1:{port}{path}"))


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://127.0.0.1:{other}/base/x",
        "//localhost/x",
        "/elsewhere",
        "../up",
        "file:///etc/passwd",
        "/base/%2e%2e/secret",
        "https://127.0.0.1:{port}/base/x",
    ],
)
def test_a_redirect_out_of_the_root_is_refused(location: str) -> None:
    asked: list[str] = []
    elsewhere: list[str] = []
    with (
        serving(lambda path: (200, {}, b"private"), elsewhere) as other,
        serving(lambda path: (302, {"Location": location.format(other=other, port=0)}, b""), asked) as port,
        pytest.raises(NotAllowed) as refused,
    ):
        preview(web_root(port), "x.txt")
    assert refused.value.code == "redirect_not_allowed"
    assert (asked, elsewhere) == (["/base/x.txt"], [])


def test_a_redirect_within_the_root_is_followed() -> None:
    def answer(path: str) -> Answer:
        return (302, {"Location": "y.txt"}, b"") if path == "/base/x.txt" else (200, {}, b"there")

    with serving(answer, []) as port:
        assert preview(web_root(port), "x.txt")["text"] == "there"


def test_redirects_end() -> None:
    with serving(lambda path: (302, {"Location": path}, b""), []) as port, pytest.raises(Unreachable) as refused:
        preview(web_root(port), "x.txt")
    assert refused.value.code == "root_unreachable"


def test_links_to_elsewhere_are_not_listed() -> None:
    page = b"""<a href="good.csv">g</a><a href="sub/">s</a><a href="/abs">a</a>
    <a href="http://169.254.169.254/x">m</a>
    <a href="../up">u</a><a href="?C=N">n</a><a href="a/b">d</a>
    <a href="%2e%2e%2fsecret">e</a><a href="javascript:x">j</a>"""
    with serving(lambda path: (200, {"Content-Type": "text/html"}, page), []) as port:
        assert [item["name"] for item in list_folder(web_root(port))["items"]] == ["sub", "good.csv"]


def test_link_local_addresses_are_refused() -> None:
    for host in ("169.254.169.254", "[fe80::1]", "0.0.0.0"):
        root = catalog_root(Root(name="web", url=f"http://{host}/base"))
        with pytest.raises((NotAllowed, Unreachable)) as refused:
            preview(root, "x.txt")
        assert refused.value.code in {"address_not_allowed", "root_unreachable"}


def test_a_server_without_ranges_is_not_read_to_the_end() -> None:
    asked: list[str] = []
    content = b"PAR1" + b"x" * 5_000_000
    with serving(lambda path: (200, {}, content), asked) as port, pytest.raises(Unreachable) as refused:
        preview(web_root(port), "big.parquet")
    assert refused.value.code == "no_ranges"


@pytest.mark.parametrize(
    ("status", "code"), [(403, "permission_denied"), (404, "not_found"), (500, "root_unreachable")]
)
def test_statuses_become_our_codes(status: int, code: str) -> None:
    with serving(lambda path: (status, {}, b""), []) as port, pytest.raises(Exception) as refused:
        preview(web_root(port), "x.txt")
    assert getattr(refused.value, "code", None) == code


def test_nobody_at_the_port_is_unreachable() -> None:
    with serving(lambda path: (200, {}, b""), []) as port:
        pass
    with pytest.raises(Unreachable):
        list_folder(web_root(port))
