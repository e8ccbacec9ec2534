"""Which service a client takes, and what it says when there is none."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

import atelier
from atelier.client import Client
from atelier.client.address import Address, address_in, live_address, origin_of, read_token
from atelier.errors import NotAllowed, RefusedInput


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("http://hub.example/services/atelier", "http://hub.example"),
        ("http://hub.example/services/atelier/api/v1/", "http://hub.example"),
        ("https://example.org/jupyter/services/atelier/", "https://example.org/jupyter"),
        ("https://example.org/jupyter/", "https://example.org/jupyter"),
    ],
)
def test_any_url_of_hub_service_or_api_gives_the_same_origin(url: str, origin: str) -> None:
    assert origin_of(url) == origin


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://x", "http://", "file:///etc/passwd"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(RefusedInput) as refused:
        origin_of(url)
    assert refused.value.code == "bad_url"


def test_environment_of_a_user_server(tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("from-file\n")
    given = {"ATELIER_URL": "http://hub:1/services/atelier", "JUPYTERHUB_API_TOKEN": "from-hub"}
    assert address_in(given) == Address("http://hub:1", "from-hub")
    assert address_in({**given, "ATELIER_TOKEN_FILE": str(token_file)}) == Address("http://hub:1", "from-file")
    assert address_in({"JUPYTERHUB_API_TOKEN": "from-hub"}) is None


def test_a_url_without_a_token_says_where_one_comes_from() -> None:
    with pytest.raises(NotAllowed) as refused:
        address_in({"ATELIER_URL": "http://hub:1"})
    assert refused.value.code == "no_token"
    assert "--token-file" in refused.value.hint


def test_a_token_is_in_no_repr() -> None:
    assert "geheim" not in repr(Address("http://hub:1", "geheim"))


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe"])
def test_a_token_file_without_a_token_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RefusedInput) as refused:
        read_token(path)
    assert refused.value.code == "bad_token_file"
    assert str(path) in refused.value.message


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    (tmp_path / "token").write_text("secret")
    return tmp_path


def _note(home: Path, **note: object) -> None:
    (home / "run" / "service.json").write_text(
        json.dumps({"pid": 1, "token_file": str(home / "token"), "url": None, **note})
    )


def test_only_a_service_that_accepts_connections_is_live(home: Path) -> None:
    assert live_address(home) is None
    path = home / "run" / "service.sock"
    _note(home, socket=str(path))
    assert live_address(home) is None
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert live_address(home) is None, "bound, and not listening yet"
        server.listen()
        assert live_address(home) == Address("http://atelier", "secret", str(path))
    assert live_address(home) is None, "closed, and its socket file left behind"


def test_a_service_on_a_port_is_found(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        _note(home, socket=None, url=f"http://127.0.0.1:{port}")
        assert live_address(home) == Address(f"http://127.0.0.1:{port}", "secret")
    assert live_address(home) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "{}", '{"token_file": "/nowhere", "socket": "/nowhere"}'])
def test_a_torn_note_is_no_service(home: Path, text: str) -> None:
    (home / "run" / "service.json").write_text(text)
    assert live_address(home) is None


def test_code_in_a_run_neither_finds_nor_starts_a_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = {"ATELIER_RUN_DIR": str(tmp_path), "ATELIER_HOME": str(tmp_path / "home")}
    with pytest.raises(NotAllowed) as refused:
        Client.find(inside)
    assert refused.value.code == "inside_run"
    assert "atelier.export" in refused.value.hint
    assert Client.find({**inside, "ATELIER_URL": "http://hub:1", "JUPYTERHUB_API_TOKEN": "x"}).behind_hub

    for name, value in inside.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("ATELIER_URL", raising=False)
    with pytest.raises(NotAllowed, match="can't call"):
        atelier.runs()
    assert not (tmp_path / "home").exists()
