"""What is sent, what is sent again, and which error comes of which answer."""

from __future__ import annotations

import gc
import hashlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from atelier.client import Address, Client
from atelier.client import transport as transport_module
from atelier.client.transport import Transport
from atelier.errors import AtelierError, InternalError, NotAllowed, NotFound, RefusedInput, Unreachable
from tests.tiny_server import Answer, Request, talk, tiny_server

RUN = "r-aaaaaaaaaa"


def _error(status: int, code: str) -> Answer:
    return Answer(
        status, json.dumps({"error": {"code": code, "message": "m", "detail": {"a": 1}, "hint": "h"}}).encode()
    )


def _script(*answers: Answer) -> Iterator[Answer]:
    yield from answers
    while True:
        yield answers[-1]


def test_every_request_says_who_and_which_wire() -> None:
    with talk(lambda _: Answer(body=b'{"items": []}')) as (client, server):
        client.runs(state="running")
    headers = server.asked[0].headers
    assert (headers["authorization"], headers["atelier-wire"]) == ("token t0ken", "1")
    assert server.asked[0].path == "/services/atelier/api/v1/runs?state=running&limit=50"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (422, RefusedInput),
        (404, NotFound),
        (403, NotAllowed),
        (401, NotAllowed),
        (413, RefusedInput),
        (500, InternalError),
    ],
)
def test_an_error_of_the_service_keeps_code_detail_and_hint(status: int, kind: type[AtelierError]) -> None:
    with talk(lambda _: _error(status, "some_code")) as (client, _), pytest.raises(kind) as refused:
        client.run(RUN)
    error = refused.value
    assert (error.code, error.message, error.hint, error.detail) == ("some_code", "m", "h", {"a": 1})


def test_a_page_that_is_not_ours_is_an_error_too() -> None:
    with talk(lambda _: Answer(500, b"<html>oops")) as (client, _), pytest.raises(InternalError) as refused:
        client.run(RUN)
    assert refused.value.code == "http_error"


def test_a_login_page_means_that_the_token_is_no_good() -> None:
    page = Answer(302, b"", {"Location": "/hub/login"})
    with talk(lambda _: page) as (client, _), pytest.raises(NotAllowed) as refused:
        client.run(RUN)
    assert refused.value.code == "unauthenticated"


@pytest.mark.parametrize("away", [_error(503, "unreachable"), Answer(502, b"<html>"), Answer(200, b"{}", cut=1)])
def test_reads_and_submits_are_repeated_while_the_service_restarts(away: Answer) -> None:
    answers = _script(away, away, Answer(body=b'{"id": "r-aaaaaaaaaa"}'))
    with talk(lambda _: next(answers)) as (client, server):
        assert client.run(RUN)["id"] == RUN
    answers = _script(away, Answer(201, b'{"id": "r-aaaaaaaaaa"}'))
    with talk(lambda _: next(answers)) as (client, server):
        assert client.submit({"work": 1})["id"] == RUN
    keys = {request.headers["idempotency-key"] for request in server.asked}
    assert len(server.asked) == 2
    assert len(keys) == 1


def test_what_must_not_happen_twice_is_sent_once() -> None:
    with tiny_server(lambda _: _error(503, "unreachable")) as server, pytest.raises(Unreachable):
        Transport(lambda: Address(server.url, "t")).request("POST", "/x", json={})
    assert len(server.asked) == 1


@pytest.mark.filterwarnings(
    "ignore:unclosed <socket:ResourceWarning"
)  # httpcore 1.0 forgets a Unix socket that it can't connect
def test_an_absent_service_is_an_error_with_its_place_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "RETRY_FOR_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    begin = time.monotonic()
    with pytest.raises(Unreachable) as refused:
        Client.at(Address(f"http://127.0.0.1:{port}", "t")).catalog()
    assert time.monotonic() - begin < 3
    assert f"http://127.0.0.1:{port}" in refused.value.message
    assert refused.value.exit_code == 5
    with pytest.raises(Unreachable) as refused:
        Client.at(Address("http://atelier", "t", "/nowhere/service.sock")).catalog()
    assert "/nowhere/service.sock" in refused.value.message
    del refused
    gc.collect()  # here, where the warning is ignored


def test_a_service_that_came_back_elsewhere_is_found() -> None:
    once = Answer(body=b'{"n": 1}', headers={"Connection": "close"})
    with tiny_server(lambda _: once) as first, tiny_server(lambda _: Answer(body=b'{"n": 2}')) as second:
        places = iter([first.url, second.url])
        with Client(Transport(lambda: Address(next(places), "t"))) as client:
            assert client.catalog() == {"n": 1}
            first.close()
            assert client.catalog() == {"n": 2}


def test_a_proxy_of_the_environment_is_not_asked_for_this_computer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with talk(lambda _: Answer(body=b'{"n": 1}')) as (client, _):
        assert client.catalog() == {"n": 1}


def test_a_bundle_that_is_there_is_not_sent_again(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    path.write_bytes(b"x" * 100_000)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    known: set[str] = set()

    def answer(request: Request) -> Answer:
        name = request.path.rsplit("/", 1)[1]
        if request.method == "PUT":
            known.add(name)
        return Answer(200 if name in known else 404, b"")

    with talk(answer) as (client, server):
        client.put_bundle(path, sha256)
        client.put_bundle(path, sha256)
        assert client.put_upload(path) == sha256
    sent = [request for request in server.asked if request.method == "PUT"]
    assert [(request.path, len(request.body)) for request in sent] == [
        (f"/services/atelier/api/v1/bundles/{sha256}", 100_000)
    ]


@pytest.mark.parametrize("name", ["../runs", "a/b", "ü 🙂", "..", "%2e%2e", "a?b#c"])
def test_a_name_is_one_part_of_the_path(name: str) -> None:
    with talk(lambda _: Answer(body=b'{"items": []}')) as (client, server):
        client.model(name)
    path = server.asked[0].path.removeprefix("/services/atelier/api/v1/models/").removesuffix("?")
    assert "/" not in path
    assert "?" not in path
    assert server.asked[0].path.startswith("/services/atelier/api/v1/models/")


def test_all_pages_of_a_list_are_read() -> None:
    def answer(request: Request) -> Answer:
        page = int(request.path.partition("page=")[2] or 0)
        return Answer(
            body=json.dumps({"items": [{"name": f"m{page}"}], "next": str(page + 1) if page < 2 else None}).encode()
        )

    with talk(answer) as (client, _):
        assert [entry["name"] for entry in client.models()] == ["m0", "m1", "m2"]
