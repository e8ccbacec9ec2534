"""Small files are read and replaced without waiting for what a run has put in their places, and within a bound."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from atelier.agent.launching import Launcher
from atelier.agent.place import Place
from atelier.agent.shipper import write_control
from atelier.agent.uncaught import END_BYTES, noted
from atelier.local.cgroups import noted_group
from atelier.local.plain import read_small, write_small, write_whole
from atelier.recorder.spool import MANIFEST, unlike_manifest

READERS: dict[str, Callable[[Path], object]] = {
    "a group": lambda path: noted_group(path, "name"),
    "a launch": lambda path: Launcher(path).problem(),
    "an error": noted,
}


@pytest.fixture(params=["pipe", "endless", "huge", "folder"])
def harmed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A place where a run has put what is no small file."""
    path = tmp_path / "note"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "endless":
        path.symlink_to("/dev/zero")
    elif request.param == "huge":
        path.touch()
        os.truncate(path, 1 << 40)
    else:
        path.mkdir()
    return path


@pytest.mark.parametrize("name", READERS)
def test_a_note_that_was_replaced_counts_as_none(harmed: Path, name: str) -> None:
    told = READERS[name](harmed)
    if name == "an error" and harmed.is_file():
        assert len(str(told)) < 3 * END_BYTES
    else:
        assert told is None


def test_a_file_is_read_up_to_a_bound(tmp_path: Path, harmed: Path) -> None:
    (tmp_path / "small").write_bytes(b"1234")
    assert read_small(tmp_path / "small", 4) == b"1234"
    for path, most_bytes in ((tmp_path / "small", 3), (harmed, 100)):
        with pytest.raises(OSError, match=path.name):
            read_small(path, most_bytes)


def test_a_manifest_that_was_replaced_is_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / MANIFEST)
    assert unlike_manifest(tmp_path, {}) == "it has no manifest"


@pytest.mark.parametrize("write", [write_small, write_whole])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink(path.parent / "other", path)])
def test_a_file_is_written_past_what_a_run_has_put_there(
    tmp_path: Path, write: Callable[[Path, bytes], None], make: Callable[[Path], None]
) -> None:
    (tmp_path / "other").write_bytes(b"whole")
    make(tmp_path / "note")
    make(tmp_path / ".note.part")
    write(tmp_path / "note", b"new")
    assert (tmp_path / "note").read_bytes() == b"new"
    assert (tmp_path / "other").read_bytes() == b"whole"
    assert not os.path.islink(tmp_path / "note")


def test_an_order_to_stop_waits_for_nobody(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.make()
    for path in (place.control, place.control.with_suffix(".part"), place.control.with_name(".control.json.part")):
        os.mkfifo(path)
    write_control(place, "cancel")
    assert place.control.read_text() == '{"stop": "cancel"}'
