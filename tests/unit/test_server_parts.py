"""Parts of the server extension alone: what passes, what waits for a page, which service is asked, new files."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atelier.errors import Conflict, NotAllowed, NotFound, RefusedInput, Unreachable
from atelier.server.copies import CopyOrder
from atelier.server.endpoint import find_endpoint
from atelier.server.events import Event, read_events
from atelier.server.folders import new_file, path_below, relative_parts
from atelier.server.outbox import LIMIT, POINTS_LIMIT, RESYNC, Message, Outbox
from atelier.server.passing import SMALL_BODY_BYTES, asked_headers, body_limit_bytes, checked_path, told_headers
from atelier.server.written import read_sources, submit_written, until_written

RUN = "r-aaaaaaaaaa"


# -- passing ----------
@pytest.mark.parametrize(
    "path",
    ["runs", f"runs/{RUN}/artifacts/out/a%20b%2525%20na%C3%AFve.txt", "models/digits/versions/3/files/a", "runs/x/..."],
)
def test_a_sound_path_passes_unchanged(path: str) -> None:
    assert checked_path(path) == "/" + path


@pytest.mark.parametrize(
    "path",
    ["", "/", "runs/", "runs//x", "..", "runs/..", "runs/%2e%2E/x", "runs/.", "runs/a%2Fb", "runs/a%5cb", "runs/%00",
     "runs/a b", "runs/%zz", "runs/a%", "runs/x?y", "runs/x#y", "Runs", "runs/\x7f", "runs/ü", "../healthz", "a" * 40],
)  # fmt: skip
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(RefusedInput) as refused:
        checked_path(path)
    assert refused.value.code == "bad_path"


@pytest.mark.parametrize("path", ["events", f"runs/{RUN}/events"])
def test_event_streams_do_not_pass(path: str) -> None:
    with pytest.raises(NotFound):
        checked_path(path)


def test_only_bundles_and_model_files_may_be_large() -> None:
    assert body_limit_bytes("/bundles/" + "a" * 64, 10**10) == 10**10
    assert body_limit_bytes("/uploads/" + "a" * 64, 10**10) == 10**10
    for path in ("/runs", "/bundles/x", f"/bundles/{'a' * 64}/more"):
        assert body_limit_bytes(path, 10**10) == SMALL_BODY_BYTES


def test_secrets_of_the_page_do_not_pass() -> None:
    sent = {
        "Cookie": "c",
        "AUTHORIZATION": "token t",
        "X-XSRFToken": "x",
        "Host": "h",
        "accept": "a",
        "Range": "bytes=0-",
    }
    assert asked_headers(sent) == {"accept": "a", "Range": "bytes=0-", "Accept-Encoding": "identity"}


@pytest.mark.parametrize(
    ("kind", "inline"),
    [("application/json", True), ("application/x-ipynb+json", True), ("application/json; charset=utf-8", True),
     ("text/html", False), ("image/svg+xml", False), ("text/plain", False), ("application/json+html", False),
     (None, False)],
)  # fmt: skip
def test_all_but_json_is_an_attachment(kind: str | None, inline: bool) -> None:
    told = told_headers([("content-type", kind)] if kind else [], status=200)
    assert ("Content-Disposition" not in told) is inline
    kept = told_headers([("content-type", "text/html"), ("content-disposition", 'inline; filename="a"')], status=200)
    assert kept["Content-Disposition"] == "attachment"


# -- messages that wait ----------
def run_message(state: str, run: str = RUN) -> Message:
    return {"type": "run", "data": {"id": run, "state": state}}


def metrics(*points: list[float], name: str = "loss") -> Message:
    return {"type": "metrics", "data": {"run": RUN, "last": {name: points[-1][1]}, "points": {name: list(points)}}}


def drained(outbox: Outbox) -> list[Message]:
    async def drain() -> list[Message]:
        return [await asyncio.wait_for(outbox.get(), 1) for _ in range(len(outbox))]

    return asyncio.run(drain())


def test_a_newer_state_takes_the_place_of_an_older_one() -> None:
    outbox = Outbox()
    for message in (run_message("queued"), run_message("queued", "r-bbbbbbbbbb"), run_message("running")):
        outbox.put(message)
    assert [one["data"]["state"] for one in drained(outbox)] == ["queued", "running"]


def test_points_are_joined_and_none_is_lost() -> None:
    outbox = Outbox()
    outbox.put(metrics([0, 1.0, 1.0]))
    outbox.put(metrics([1, 0.5, 2.0]))
    outbox.put(metrics([1, 0.9, 2.0], name="acc"))
    (told,) = drained(outbox)
    assert told["data"]["points"] == {"loss": [[0, 1.0, 1.0], [1, 0.5, 2.0]], "acc": [[1, 0.9, 2.0]]}
    assert told["data"]["last"] == {"loss": 0.5, "acc": 0.9}


def test_artifacts_are_all_told() -> None:
    outbox = Outbox()
    for path in ("a", "b"):
        outbox.put({"type": "artifact", "data": {"run": RUN, "artifact": {"path": path}}})
    assert [one["data"]["artifact"]["path"] for one in drained(outbox)] == ["a", "b"]


def test_a_page_that_does_not_read_costs_bounded_memory() -> None:
    outbox = Outbox()
    for n in range(LIMIT + 1):
        outbox.put({"type": "artifact", "data": {"run": RUN, "n": n}})
    assert drained(outbox) == [RESYNC]
    for _ in range(3):
        outbox.put(metrics(*[[0, 1.0, 1.0]] * (POINTS_LIMIT // 2)))
    assert drained(outbox) == [RESYNC]


# -- the event stream ----------
def test_events_are_read_as_the_standard_says() -> None:
    lines = [
        ": hello",
        "",
        "id: 7",
        "event: run",
        'data: {"a":',
        "data:  1}",
        "",
        "event: lost",
        "",
        "data: x",
        "",
        "data: cut",
    ]

    async def feed() -> AsyncIterator[str]:
        for line in lines:
            yield line

    async def read() -> list[Event]:
        return [event async for event in read_events(feed())]

    assert asyncio.run(read()) == [Event("run", '{"a":\n 1}', "7"), Event("message", "x", "7")]


# -- which service ----------
def test_the_service_is_the_hubs_else_the_noted_one(tmp_path: Path) -> None:
    hub = find_endpoint({"ATELIER_URL": "http://hub:8000/services/atelier/", "JUPYTERHUB_API_TOKEN": "t"})
    assert (hub.url, hub.token, hub.socket_path) == ("http://hub:8000", "t", None)
    environ = {"ATELIER_HOME": str(tmp_path)}
    with pytest.raises(Unreachable) as nowhere:
        find_endpoint(environ)
    assert nowhere.value.code == "service_not_running"
    (tmp_path / "run").mkdir()
    (tmp_path / "token").write_text("private\n")
    note = {"socket": "/run/s.sock", "token_file": str(tmp_path / "token"), "url": None}
    (tmp_path / "run" / "service.json").write_text(json.dumps(note))
    local = find_endpoint(environ)
    assert (local.token, local.socket_path) == ("private", "/run/s.sock")
    assert "private" not in repr(local)
    for broken in ("{", "[]", json.dumps({"socket": "x"}), json.dumps({**note, "token_file": "/nowhere"})):
        (tmp_path / "run" / "service.json").write_text(broken)
        with pytest.raises(Unreachable):
            find_endpoint(environ)


# -- files ----------
@pytest.mark.parametrize("told", [None, 3, "/etc/passwd", "../x", "a/../../x", "a\0b"])
def test_a_path_below_the_root_is_relative(tmp_path: Path, told: object) -> None:
    with pytest.raises(RefusedInput):
        path_below(tmp_path, told)


@pytest.mark.parametrize("told", ["", "/x", "a//b", "a/", "..", "a/../b", ".", ".ssh/x", "a/.hidden", "a\0"])
def test_what_is_written_beside_has_a_plain_name(told: str) -> None:
    with pytest.raises(RefusedInput):
        relative_parts(told)


def test_a_new_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_file(tmp_path, ("out", "a.bin"), replace=False) as file:
        file.write(b"half")
        assert not (tmp_path / "out" / "a.bin").exists()
        raise ZeroDivisionError
    assert list((tmp_path / "out").iterdir()) == []
    with new_file(tmp_path, ("out", "a.bin"), replace=False) as file:
        file.write(b"whole")
    assert (tmp_path / "out" / "a.bin").read_bytes() == b"whole"


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    with pytest.raises(Conflict) as refused, new_file(tmp_path, ("a.bin",), replace=False) as file:
        file.write(b"ours")
        (tmp_path / "a.bin").write_bytes(b"theirs")
        (tmp_path / "a-1.bin").write_bytes(b"theirs too")
    assert refused.value.detail["free"] == "a-2.bin"
    assert (tmp_path / "a.bin").read_bytes() == b"theirs"
    assert len(list(tmp_path.iterdir())) == 2


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.mkdir()
    folder.mkdir()
    (folder / "link").symlink_to(outside)
    with pytest.raises(NotAllowed), new_file(folder, ("link", "a.bin"), replace=True):
        pass
    (folder / "a.bin").symlink_to(outside / "a.bin")
    with new_file(folder, ("a.bin",), replace=True) as file:
        file.write(b"new")
    assert not (folder / "a.bin").is_symlink()
    assert list(outside.iterdir()) == []


def test_a_folder_that_is_swapped_for_a_link_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    with new_file(tmp_path, ("out", "a.bin"), replace=False) as file:
        os.rename(tmp_path / "out", tmp_path / "moved")
        (tmp_path / "out").symlink_to(outside)
        file.write(b"content")
    assert list(outside.iterdir()) == []
    assert (tmp_path / "moved" / "a.bin").read_bytes() == b"content"


def book(*sources: str | list[str]) -> str:
    return json.dumps({"cells": [{"cell_type": "code", "source": source} for source in sources]})


def test_a_notebook_is_awaited_until_it_is_what_the_page_shows(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    path.write_text(book("x = 1"))

    async def write_later() -> None:
        waiting = asyncio.create_task(until_written(path, ["x = 12\n# more", ""], limit_s=10))
        for text in ("", book("x = 12"), book("x = 12\n# more")):
            await asyncio.sleep(0.15)
            path.write_text(text)
            assert not waiting.done()
        path.write_text(book(["x = 12\n", "# more"], ""))
        await asyncio.wait_for(waiting, 5)

    asyncio.run(write_later())
    with pytest.raises(Conflict) as late:
        asyncio.run(until_written(path, ["other"], limit_s=0.2))
    assert late.value.code == "not_saved"


def test_a_save_in_the_middle_of_a_submit_is_no_broken_notebook(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    path.write_text(book("x = 1"))
    tries: list[str] = []

    def submit() -> str:
        tries.append("try")
        if len(tries) < 3:
            raise RefusedInput("bad_notebook", "cut short")
        return "r-done"

    def refuse() -> str:
        tries.append("refused")
        raise RefusedInput("unknown_parameter", "no such")

    assert asyncio.run(submit_written(path, ["x = 1"], submit=submit)) == "r-done"
    assert len(tries) == 3
    for sources, call in ((["x = 1"], refuse), (None, refuse)):
        tries.clear()
        with pytest.raises(RefusedInput):
            asyncio.run(submit_written(path, sources, submit=call))
        assert tries == ["refused"]


@pytest.mark.parametrize("told", ["text", [1], {"a": "b"}])
def test_sources_are_texts(told: object) -> None:
    with pytest.raises(RefusedInput):
        read_sources(told)
    assert read_sources(None) is None


@pytest.mark.parametrize(
    "body",
    [{}, {"run": "r-1"}, {"run": RUN, "artifact": 3}, {"run": RUN, "replace": "yes"}, {"run": RUN, "mode": "x"},
     {"run": RUN, "beside": []}, {"run": f"{RUN}/../x"}],
)  # fmt: skip
def test_a_wrong_order_is_refused(body: dict[str, object]) -> None:
    with pytest.raises(RefusedInput) as refused:
        CopyOrder.read(body)
    assert refused.value.code == "bad_order"
