"""The agent's small parts: events read once and in order, time left, files by URL."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from atelier.agent.events import EventReader
from atelier.agent.notebook import with_parameters
from atelier.agent.outputs import Written, remember, written
from atelier.agent.place import Place, fetch, sha256_of, store
from atelier.agent.progress import ProgressMeter
from atelier.agent.surroundings import packages_of
from atelier.errors import Conflict, RefusedInput, Unreachable
from atelier.local.plain import write_whole


# -- events -------------------------------------------------------------------------------------------------------
class Taker:
    """Takes events; raises what is put into ``problem`` once."""

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.complaints: list[str] = []
        self.problem: Exception | None = None

    def __call__(self, event: dict[str, Any]) -> None:
        if self.problem is not None:
            problem, self.problem = self.problem, None
            raise problem
        self.taken.append(event["n"])


def reader_of(path: Path) -> tuple[EventReader, Taker]:
    taker = Taker()
    return EventReader(path, taker, taker.complaints.append), taker


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_each_whole_line_is_taken_once(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    reader, taker = reader_of(path)
    reader.read()
    append(path, '{"n": 1}\n{"n": 2}\n{"n"')
    for _ in range(2):
        reader.read()
    assert taker.taken == [1, 2]
    append(path, ": 3}\n")
    reader.read()
    assert taker.taken == [1, 2, 3]


def test_an_event_comes_again_when_the_service_was_away(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    reader, taker = reader_of(path)
    append(path, '{"n": 1}\n{"n": 2}\n')
    taker.problem = Unreachable("service_away", "away")
    with pytest.raises(Unreachable):
        reader.read()
    reader.read()
    assert taker.taken == [1, 2]


def test_an_event_that_is_refused_is_told_and_the_next_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    reader, taker = reader_of(path)
    append(path, '{"n": 1}\n{"n": 2}\nnot json\n[]\n{"m": 1}\n{"n": 3}\n')
    taker.problem = RefusedInput("bad_path", "'../x' is not a path.")
    reader.read()
    assert taker.taken == [2, 3]
    assert len(taker.complaints) == 4
    assert "'../x' is not a path." in taker.complaints[0]


def test_the_end_of_the_attempt_ends_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    reader, taker = reader_of(path)
    append(path, '{"n": 1}\n')
    taker.problem = Conflict("stale_attempt", "over")
    with pytest.raises(Conflict):
        reader.read()


# -- progress -----------------------------------------------------------------------------------------------------
def left_s(meter: ProgressMeter) -> float | None:
    told = meter.as_json()
    assert told is not None
    left: float | None = told["left_s"]
    return left


def test_time_left_needs_two_points() -> None:
    meter = ProgressMeter()
    assert meter.as_json() is None
    meter.set(1, 5, 1000.0, own=True)
    assert left_s(meter) is None
    meter.set(2, 5, 1010.0, own=True)
    assert left_s(meter) == 30.0
    meter.set(5, 5, 1040.0, own=True)
    assert left_s(meter) == 0.0
    assert meter.as_json() == {"done": 5, "total": 5, "unit": None, "left_s": 0.0, "at": "1970-01-01T00:17:20.000Z"}


def test_time_left_is_unknown_where_it_can_not_be_known() -> None:
    for points in ([(1, None, 0.0), (2, None, 9.0)], [(1, 5, 0.0), (1, 5, 9.0)], [(1, 5, 0.0), (2, 5, 0.0)]):
        meter = ProgressMeter()
        for done, total, at_s in points:
            meter.set(done, total, at_s, own=True)
        assert left_s(meter) is None, points


def test_a_start_from_the_beginning_starts_the_rate_anew() -> None:
    meter = ProgressMeter()
    for done, total, at_s in ((1, 5, 0.0), (4, 5, 3.0), (1, 5, 4.0)):
        meter.set(done, total, at_s, own=True)
    assert left_s(meter) is None
    meter.set(2, 5, 14.0, own=True)
    assert left_s(meter) == 30.0


def test_what_the_code_tells_stands_over_its_cells() -> None:
    meter = ProgressMeter()
    meter.set(3, 9, 1.0, own=False)
    assert (meter.as_json() or {})["unit"] == "cells"
    meter.set(6, 9, 1.5, own=False)
    assert left_s(meter) is None, "three imports say nothing of the cell that trains"
    meter.set(1, 100, 2.0, own=True)
    meter.set(4, 9, 3.0, own=False)
    told = meter.as_json()
    assert told is not None
    assert (told["done"], told["total"], told["unit"], told["left_s"]) == (1, 100, None, None)


@pytest.mark.parametrize(
    ("done", "total", "at_s"),
    [("x", 5, 0.0), (float("nan"), 5, 0.0), (1, float("inf"), 0.0), (1, 5, 1e300), (1, [], 0.0)],
)
def test_what_is_no_progress_changes_nothing(done: Any, total: Any, at_s: float) -> None:
    meter = ProgressMeter()
    meter.set(1, 5, 1000.0, own=True)
    before = meter.as_json()
    with pytest.raises((ValueError, TypeError, OverflowError, OSError)):
        meter.set(done, total, at_s, own=True)
    assert meter.as_json() == before


# -- files --------------------------------------------------------------------------------------------------------
def test_a_file_is_stored_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "kept" / "x.bin"
    target.parent.mkdir()
    target.write_bytes(b"before")
    with pytest.raises(FileNotFoundError):
        store(tmp_path / "nowhere", target.as_uri())
    assert [path.name for path in target.parent.iterdir()] == ["x.bin"]
    assert target.read_bytes() == b"before"
    write_whole(tmp_path / "source", b"after")
    store(tmp_path / "source", target.as_uri())
    fetch(target.as_uri(), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"after"
    assert sha256_of(tmp_path / "back") == sha256_of(target)


@pytest.mark.parametrize("name", ["字" * 84 + ".md", "n" * 255])
def test_a_file_with_the_longest_name_is_stored(tmp_path: Path, name: str) -> None:
    assert len(os.fsencode(name)) == 255
    write_whole(tmp_path / "source", b"content")
    target = tmp_path / "kept" / name
    target.parent.mkdir()
    store(tmp_path / "source", target.as_uri())
    assert [path.name for path in target.parent.iterdir()] == [name]
    assert target.read_bytes() == b"content"


def test_only_one_agent_holds_an_attempt(tmp_path: Path) -> None:
    place = Place(tmp_path)
    (tmp_path / "orders.json").write_text(json.dumps({"run": "r-aaaaaaaaaa", "attempt": 1}))
    first = place.take_lock()
    assert first is not None
    child = os.fork()
    if child == 0:
        os._exit(0 if Place(tmp_path).take_lock() is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    first.close()
    second = place.take_lock()
    assert second is not None
    second.close()


def test_what_was_written_is_found(tmp_path: Path) -> None:
    root, note = tmp_path / "work", tmp_path / "before.json"
    for name in ("same.txt", "changed.txt", "gone.txt", "deep/same.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    remember(root, note)
    (root / "changed.txt").write_text("CHANGED.TXT")
    os.utime(root / "changed.txt", ns=(1, 1))
    (root / "gone.txt").unlink()
    for name in ("new.txt", "deep/new.txt", "__pycache__/x.pyc", ".git/x", "x.tmp", "x.pyc", ".venv/y", ".hidden"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    (root / "link").symlink_to("/etc/passwd")
    os.mkfifo(root / "pipe")
    kept = [".hidden", "changed.txt", "deep/new.txt", "new.txt", "x.pyc", "x.tmp"]
    tools = [f"{name} (an environment's or a tool's own folder)" for name in (".git", ".venv")]
    assert written(root, note) == Written(kept, 0, [*tools, "link (a link)", "pipe (a pipe)"])


def test_what_may_be_a_result_is_kept_however_it_is_called(tmp_path: Path) -> None:
    """Folders of tools are named where the work has written there, and kept nowhere."""
    root, note = tmp_path / "work", tmp_path / "before.json"
    for name in (".git", "old/node_modules", ".cache"):
        (root / name).mkdir(parents=True)
        os.utime(root / name, ns=(1, 1))
    remember(root, note)
    kept = ["a.part", "a.tmp", "a~", "poetry.lock", "venv.txt"]
    for name in (*kept, ".cache/x", "deep/venv/x", "deep/__pycache__/x"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    tools = [f"{name} (an environment's or a tool's own folder)" for name in (".cache", "deep/venv")]
    assert written(root, note) == Written(kept, 0, tools)


def test_too_many_files_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atelier.agent.outputs.MOST_FILES", 3)
    for n in range(5):
        (tmp_path / f"{n}.txt").touch()
    assert written(tmp_path, tmp_path.parent / "nothing.json") == Written(["0.txt", "1.txt", "2.txt"], 2, [])


def test_the_packages_of_an_environment_are_read_from_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "lib/python3.11/site-packages"
    for name in ("Torch_Vision-0.2.dist-info", "numpy-2.0.dist-info", "x.py", "odd.dist-info", "numpy"):
        (folder / name).mkdir(parents=True)
    assert packages_of(tmp_path / "bin/python") == "numpy==2.0\ntorch-vision==0.2\n"
    assert packages_of(Path("/nowhere/bin/python")) == ""


# -- parameters of a notebook -------------------------------------------------------------------------------------
def test_parameters_come_after_the_tagged_cell_and_replace_older_ones() -> None:
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    tagged = new_code_cell("epochs = 1", metadata={"tags": ["parameters"]}, execution_count=7, outputs=[])
    older = new_code_cell("epochs = 9", metadata={"tags": ["injected-parameters"]})
    book = new_notebook(cells=[new_markdown_cell("# Title"), tagged, older, new_code_cell("print(epochs)")])
    made = with_parameters(book, "epochs = 3\n")
    assert [cell.source for cell in made.cells] == ["# Title", "epochs = 1", "epochs = 3\n", "print(epochs)"]
    assert all(cell.execution_count is None for cell in made.cells if cell.cell_type == "code")
    plain = with_parameters(new_notebook(cells=[new_code_cell("print(1)")]), "epochs = 3\n")
    assert [cell.source for cell in plain.cells] == ["epochs = 3\n", "print(1)"]
    assert [cell.source for cell in with_parameters(made, "").cells] == ["# Title", "epochs = 1", "print(epochs)"]
