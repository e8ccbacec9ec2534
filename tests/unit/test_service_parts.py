"""The service's small parts: text cut at whole letters, paths from outside, names, bodies, file systems."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from atelier.errors import RefusedInput
from atelier.records import RunSpec, Work, WorkKind
from atelier.service.boundary import FromAgent, FromUser
from atelier.service.manager import checked_model_name, checked_name, default_name
from atelier.service.serving import socket_path
from atelier.service.store import database
from atelier.service.store.database import file_system_of, refuse_network_disk
from atelier.service.streams import _whole_text
from atelier.service.turns import Turns
from atelier.storage.paths import RunPaths, checked_path, model_key, owner_key, upload_key


# -- text ---------------------------------------------------------------------------------------------------------
@given(st.text(max_size=40), st.integers(1, 9))
def test_a_text_read_in_pieces_is_the_text(text: str, size: int) -> None:
    data, offset, pieces = text.encode(), 0, []
    while offset < len(data):
        piece = data[offset : offset + max(4, size)]
        got, used, skipped = _whole_text(piece, is_last=offset + len(piece) >= len(data))
        assert (used > 0, skipped) == (True, 0)
        pieces.append(got)
        offset += used
    assert "".join(pieces) == text


@given(st.binary(max_size=40), st.booleans())
def test_no_bytes_stop_a_reader(data: bytes, is_last: bool) -> None:
    _, used, skipped = _whole_text(data, is_last=is_last)
    assert 0 <= skipped <= 3
    assert used > 0 or not data


def test_a_piece_that_begins_in_a_letter_skips_its_rest() -> None:
    assert _whole_text("é!".encode()[1:], is_last=True) == ("!", 2, 1)


# -- paths --------------------------------------------------------------------------------------------------------
GOOD_PATHS = ["x", "a/b/c.txt", "...", "..a", "a..", "naïve 🙂.txt", " ", "%2e%2e/x", "a:b", "-x", "~", "a" * 255]
BAD_PATHS = [
    "",
    "/",
    "/x",
    "x/",
    "a//b",
    ".",
    "..",
    "../x",
    "a/../b",
    "a/./b",
    "a\\b",
    "a\0b",
    "a\nb",
    "\x1f",
    "a" * 256,
    "a/" * 600 + "a",
]


@pytest.mark.parametrize("path", GOOD_PATHS)
def test_a_path_below_its_root_is_taken(path: str) -> None:
    assert checked_path(path) == path
    assert RunPaths("r-aaaaaaaaaa").artifact(2, path, sha256="ab") == f"runs/r-aaaaaaaaaa/artifacts/2/ab/{path}"


@pytest.mark.parametrize("path", BAD_PATHS, ids=repr)
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(RefusedInput) as caught:
        RunPaths("r-aaaaaaaaaa").artifact(1, path, sha256="ab")
    assert caught.value.code == "bad_path"


def test_owners_are_never_in_a_path() -> None:
    owner = "../../etc/ann#2026"
    for key in (owner_key(owner), upload_key(owner, "0" * 64), model_key(owner, "digits", 3)):
        assert ".." not in key
        assert "ann" not in key
    assert owner_key("ann#1") != owner_key("ann#2")


def test_chunks_sort_as_their_offsets() -> None:
    paths = RunPaths("r-aaaaaaaaaa")
    offsets = [0, 9, 10, 99, 1000, 10**12]
    assert sorted(paths.chunk(1, "log", offset) for offset in reversed(offsets)) == [
        paths.chunk(1, "log", offset) for offset in offsets
    ]


# -- names --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["train", "Run 7 (copy)", "naïve", "a.b-c_d:e", "x" * 200, "学習"])
def test_a_name_that_can_be_shown_is_taken(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize(
    "name", ["", " ", "a/b", "a\\b", "🙂", "a\nb", "a\0", "<b>", '"', "x" * 201, "\u202e", "$(x)", "`x`"]
)
def test_a_name_that_can_not_is_refused_with_one_that_can(name: str) -> None:
    with pytest.raises(RefusedInput) as caught:
        checked_name(name)
    assert caught.value.code == "bad_name"
    proposed = caught.value.hint.removeprefix("For example '").removesuffix("'.")
    assert checked_name(proposed) == proposed


@pytest.mark.parametrize("name", ["digits", "a.b_c-1", "x" * 63])
def test_a_plain_name_of_a_model_is_taken(name: str) -> None:
    assert checked_model_name(name) == name


@pytest.mark.parametrize("name", ["Digits", "-a", "a/b", "", "x" * 64, "a.", "ä"])
def test_another_name_of_a_model_is_refused_with_one_that_is_plain(name: str) -> None:
    with pytest.raises(RefusedInput) as caught:
        checked_model_name(name)
    proposed = caught.value.hint.removeprefix("For example '").removesuffix("'.")
    assert checked_model_name(proposed) == proposed


NAMES = {
    ("notebook", "deep/train.ipynb"): "train",
    ("script", "a b/træn 🙂.py"): "træn -",
    ("module", "lab.train"): "lab.train",
    ("function", "lab.train:main"): "lab.train:main",
}


@pytest.mark.parametrize(("kind", "target"), NAMES)
def test_a_run_has_the_name_of_its_work(kind: str, target: str) -> None:
    spec = RunSpec(work=Work(kind=WorkKind(kind), target=target), bundle="0" * 64)
    assert default_name(spec) == checked_name(NAMES[kind, target])


# -- bodies -------------------------------------------------------------------------------------------------------
class Asked(FromUser):
    value: object = None


class Told(FromAgent):
    value: object = None


STRANGE = ["a\0b", "\ud800", {"deep": ["\udcff"]}, {"\0": 1}, float("nan"), [float("inf")]]


@pytest.mark.parametrize("value", STRANGE, ids=repr)
def test_what_no_json_carries_is_refused_from_users_and_mended_from_agents(value: object) -> None:
    with pytest.raises(ValidationError):
        Asked(value=value)
    mended = Told(value=value).model_dump_json()
    assert Asked.model_validate_json(mended).value == Told(value=value).value


@pytest.mark.parametrize("value", ["naïve 🙂", {"a": [1, 2.5, None, True]}, "\ufffd", "\t\n"])
def test_all_else_is_left_as_it_is(value: object) -> None:
    assert Asked(value=value).value == Told(value=value).value == value


# -- turns --------------------------------------------------------------------------------------------------------
def test_turns_are_one_of_each_owner_and_few_of_all() -> None:
    turns, at_work, most = Turns(3), Counter[str](), Counter[str]()

    async def work(owner: str) -> None:
        async with turns.take(owner):
            at_work[owner] += 1
            most[owner] = max(most[owner], at_work[owner])
            most["all"] = max(most["all"], at_work.total())
            await asyncio.sleep(0.001)
            at_work[owner] -= 1

    async def all_at_once() -> None:
        await asyncio.gather(*(work(owner) for owner in ["ann"] * 9 + ["bob"] * 2 + ["cy", "di", "eve"]))
        with pytest.raises(TimeoutError):
            async with turns.take("ann"):
                await asyncio.wait_for(work("ann"), 0.01)
        await work("ann")

    asyncio.run(asyncio.wait_for(all_at_once(), 10))
    assert most == {"ann": 1, "bob": 1, "cy": 1, "di": 1, "eve": 1, "all": 3}


# -- places -------------------------------------------------------------------------------------------------------
def test_a_socket_lies_in_the_home_unless_that_is_too_deep(tmp_path: Path) -> None:
    assert socket_path(Path("/short/run")) == Path("/short/run/service.sock")
    deep = tmp_path / ("d" * 120)
    found = socket_path(deep)
    assert found != deep / "service.sock"
    assert len(str(found)) < 100
    assert found.parent.stat().st_mode & 0o077 == 0
    assert socket_path(deep) == found
    assert socket_path(tmp_path / ("e" * 120)) != found
    for one in (found, socket_path(tmp_path / ("e" * 120))):
        one.parent.rmdir()


def test_the_file_system_of_a_folder_is_known(tmp_path: Path) -> None:
    assert file_system_of(Path("/proc/self")) == "proc"
    assert file_system_of(tmp_path) != "unknown"
    refuse_network_disk(tmp_path)


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "fuseblk", "ceph"])
def test_a_database_is_kept_off_a_network_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """No such disk can be mounted here, so its name stands in for it."""
    monkeypatch.setattr(database, "file_system_of", lambda folder: kind)
    with pytest.raises(RefusedInput, match=kind) as caught:
        refuse_network_disk(tmp_path)
    assert caught.value.code == "network_disk"
    assert str(tmp_path) in caught.value.message
