"""Files come whole or not at all, and never outside of the folder they are fetched to."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from atelier.client.downloads import safe_target
from atelier.errors import InternalError, RefusedInput, Unreachable
from tests.tiny_server import Answer, Request, talk

BODY = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../b", "..", "", "a\0b", "a/..", "//etc/passwd"])
def test_a_path_that_leads_out_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(RefusedInput) as refused:
        safe_target(tmp_path, path)
    assert refused.value.code == "path_escapes"


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (inside / "plots").symlink_to(outside)
    with pytest.raises(RefusedInput):
        safe_target(inside, "plots/loss.png")


def test_odd_names_stay_as_they_are(tmp_path: Path) -> None:
    for name in ("plots/loss.png", "%2e%2e/x", "..x/y", "ärger 🙂.txt", "a\\..\\b"):
        assert safe_target(tmp_path, name) == tmp_path / name


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    with talk(lambda _: Answer(body=BODY)) as (client, server):
        path = client.artifact("r-aaaaaaaaaa", "plots/a b.bin", tmp_path / "out", sha256=SHA256)
        assert server.asked[0].path == "/services/atelier/api/v1/runs/r-aaaaaaaaaa/artifacts/plots/a%20b.bin"
    assert path == tmp_path / "out/plots/a b.bin"
    assert path.read_bytes() == BODY
    assert [entry.name for entry in path.parent.iterdir()] == ["a b.bin"]


def test_wrong_content_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"old")
    with talk(lambda _: Answer(body=b"wrong")) as (client, _), pytest.raises(InternalError) as refused:
        client.artifact("r-aaaaaaaaaa", "a.bin", tmp_path, sha256=SHA256)
    assert refused.value.code == "wrong_content"
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("a.bin", b"old")]


def test_a_cut_stream_is_asked_for_again(tmp_path: Path) -> None:
    def answer(_: Request) -> Answer:
        return Answer(body=BODY, cut=1000 if len(server.asked) == 1 else None)

    with talk(answer) as (client, server):
        assert client.artifact("r-aaaaaaaaaa", "a.bin", tmp_path, sha256=SHA256).read_bytes() == BODY
        assert len(server.asked) == 2


def test_a_stream_that_is_always_cut_ends_in_an_error(tmp_path: Path) -> None:
    with talk(lambda _: Answer(body=BODY, cut=10)) as (client, _), pytest.raises(Unreachable):
        client.artifact("r-aaaaaaaaaa", "a.bin", tmp_path)
    assert list(tmp_path.iterdir()) == []
