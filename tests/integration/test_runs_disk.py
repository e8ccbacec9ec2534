"""Uploads on the disk of a real service: received in its own private folder, whole or not there, gone when unused."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from atelier.wire import API
from tests.cli_driver import wait_for
from tests.service_driver import Service, service_over


@pytest.fixture(scope="module")
def place() -> Iterator[Service]:
    with service_over() as service:
        yield service


def begin_upload(place: Service) -> socket.socket:
    """A connection that has sent a part of an upload, and sends no more."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(place.note["socket"])
    head = f"PUT {API}/uploads/{'0' * 64} HTTP/1.1\r\nHost: atelier\r\nAuthorization: token {place.token}\r\n"
    connection.sendall(f"{head}Content-Length: 1000000\r\n\r\n".encode() + b"x" * 100_000)
    wait_for(lambda: received(place), "the upload to begin")
    return connection


def received(place: Service) -> list[Path]:
    return list((place.home / "run/uploads").iterdir())


def test_an_upload_is_received_in_the_home_and_a_cut_one_leaves_nothing(place: Service) -> None:
    with begin_upload(place):
        assert stat.S_IMODE((place.home / "run/uploads").stat().st_mode) == 0o700
        assert [stat.S_IMODE(path.stat().st_mode) for path in received(place)] == [0o600]
        assert not list(place.temporary.glob("*upload*"))
    wait_for(lambda: not received(place), "the rest of a cut upload to go")
    with place.http as http:
        assert http.put(f"{API}/uploads/{'0' * 64}", content=b"other bytes").status_code == 422
    assert received(place) == []


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "a file"])
def test_a_folder_for_uploads_that_was_removed_is_made_again(place: Service, replaced: bool) -> None:
    shutil.rmtree(place.home / "run/uploads")
    if replaced:
        (place.home / "run/uploads").write_text("in the way")
    digest = hashlib.sha256(b"again").hexdigest()
    with place.http as http:
        assert http.put(f"{API}/uploads/{digest}", content=b"again").status_code == 201
    assert stat.S_IMODE((place.home / "run/uploads").stat().st_mode) == 0o700


def test_a_file_in_the_place_of_the_folder_for_uploads_does_not_keep_a_service_from_starting(place: Service) -> None:
    place.kill()
    shutil.rmtree(place.home / "run/uploads")
    (place.home / "run/uploads").write_text("in the way")
    place.start()
    assert received(place) == []


def test_what_a_killed_service_was_receiving_and_unused_uploads_go_at_its_start(place: Service) -> None:
    keys = {}
    for data in (b"old", b"new"):
        digest = hashlib.sha256(data).hexdigest()
        with place.http as http:
            assert http.put(f"{API}/uploads/{digest}", content=data).status_code == 201
            assert http.head(f"{API}/uploads/{digest}").status_code == 200
        keys[data] = next((place.home / "blobs/uploads").glob(f"*/{digest}"))
    long_ago = time.time() - 25 * 3600
    os.utime(keys[b"old"], (long_ago, long_ago))
    with begin_upload(place):
        place.kill()
    assert received(place)
    place.start()
    assert received(place) == []
    wait_for(lambda: not keys[b"old"].exists(), "an upload of yesterday to go")
    assert keys[b"new"].exists()
