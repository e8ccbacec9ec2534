"""What the service would refuse later, the recorder refuses at once, and keeps nothing of it."""

from __future__ import annotations

import json
import os
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path

import pytest

from atelier.agent.pieces import CHUNK_BYTES
from atelier.errors import RefusedInput
from atelier.naming import MOST_BODY_BYTES, MOST_LISTED_BYTES, check_kept, check_listed
from atelier.recorder import Recorder
from atelier.records import MOST_FILE_BYTES
from atelier.storage.paths import checked_path

UNKEEPABLE = ["a\\b", "a\x1bb", "a\tb", "/".join(["d" * 250] * 5)]


@pytest.fixture
def job(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path / "run", run_id="r-aaaaaaaaaa", in_run=True)


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(RefusedInput) as caught:
        call()
    return caught.value.code


def folder_with(above: Path, name: str | bytes) -> Path:
    """A folder that holds a good file, and one with a name."""
    folder = above / "folder"
    place = os.path.join(os.fsencode(folder), os.fsencode(name))
    os.makedirs(os.path.dirname(place))
    (folder / "good").write_text("1")
    with open(place, "w") as file:
        file.write("1")
    return folder


def kept(job: Recorder) -> list[str]:
    """What lies in the spool, and what was told."""
    return sorted(path.name for path in job.folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", [*UNKEEPABLE, b"a\xff"])
def test_a_checkpoint_or_model_that_would_be_refused(job: Recorder, tmp_path: Path, name: str | bytes) -> None:
    folder = folder_with(tmp_path, name)
    assert code_of(lambda: job.checkpoint(folder, step=1)) == "bad_name"
    assert code_of(lambda: job.add_model("digits", folder)) == "bad_name"
    assert kept(job) == []


@pytest.mark.parametrize("name", UNKEEPABLE)
def test_a_folder_of_files_that_would_be_refused(job: Recorder, tmp_path: Path, name: str) -> None:
    folder = folder_with(tmp_path, name)
    assert code_of(lambda: job.save(folder)) == "bad_name"
    assert code_of(lambda: job.save(folder / "good", name=name)) == "bad_name"
    assert kept(job) == []


def test_bytes_that_are_no_utf8_count_as_they_will_be_written(job: Recorder, tmp_path: Path) -> None:
    """They are kept as ``%FF``, three letters for each byte."""
    job.save(folder_with(tmp_path, b"\xff" * 85), name="a")
    assert len(kept(job)) == len(["events", "lost", *2 * ["good", "%FF…"]])
    assert code_of(lambda: job.save(folder_with(tmp_path / "more", b"\xff" * 86), name="b")) == "bad_name"


@pytest.mark.parametrize(
    "name", ["a", "a b/ü 😀", "d" * 255, *UNKEEPABLE, "d" * 256, "/a", "a/../b", "a//b", "", "a\x7f"]
)
def test_the_recorder_refuses_what_the_service_refuses(name: str) -> None:
    for rule in (check_kept, lambda name: check_listed([name])):
        try:
            checked_path(name)
        except RefusedInput:
            assert code_of(lambda rule=rule: rule(name)) == "bad_name"  # type: ignore[misc]
        else:
            rule(name)


def is_refused(paths: list[str]) -> bool:
    """Whether a list of files is too long to be sent."""
    try:
        check_listed(paths)
    except RefusedInput:
        return True
    return False


@pytest.mark.parametrize("letter", ["a", "数", "😀"])
def test_a_list_of_files_that_is_taken_can_be_sent(letter: str) -> None:
    paths = [f"{number:08d}/{letter * 60}/{letter * 60}" for number in range(60_000)]
    count = bisect_left(range(1, len(paths)), True, key=lambda count: is_refused(paths[:count]))
    files = [{"path": path, "size_bytes": MOST_FILE_BYTES, "sha256": "f" * 64} for path in paths[:count]]
    sent = json.dumps({"step": 9 * 10**18, "copy_number": 2**31 - 1, "files": files})
    assert MOST_LISTED_BYTES * 0.9 < len(sent) < MOST_BODY_BYTES


def test_a_checkpoint_of_too_many_files_is_refused_before_it_is_copied(job: Recorder, tmp_path: Path) -> None:
    deep = tmp_path / "state" / "/".join(["数" * 80] * 3)
    deep.mkdir(parents=True)
    for number in range(5_800):
        (deep / str(number)).touch()
    assert code_of(lambda: job.checkpoint(tmp_path / "state", step=1)) == "too_many_files"
    assert kept(job) == []
    for number in range(1_000, 5_800):
        (deep / str(number)).unlink()
    job.checkpoint(tmp_path / "state", step=1)


@pytest.mark.parametrize(("first", "second"), [("p", "p/x"), ("p/x", "p"), ("p/x/y", "p"), ("p", "p/x/y")])
def test_a_file_that_would_be_the_folder_of_another(job: Recorder, tmp_path: Path, first: str, second: str) -> None:
    """Also when the agent has taken the first one away, and where another process has saved it."""
    (tmp_path / "a").write_text("1")
    job.save(tmp_path / "a", name=first).unlink()
    other = Recorder(job.folder, run_id="r-aaaaaaaaaa", in_run=True)
    assert code_of(lambda: other.save(tmp_path / "a", name=second)) == "path_taken"
    assert not (job.folder / "spool/artifacts" / second).is_file()
    job.save(tmp_path / "a", name=first)
    job.save(tmp_path / "a", name="q/x")


@pytest.mark.parametrize("name", ["system/cpu_percent", "system/"])
def test_a_metric_under_a_name_of_the_platforms_own(job: Recorder, name: str) -> None:
    assert code_of(lambda: job.log(**{name: 1.0})) == "bad_metric"
    job.log(**{"my_system/cpu_percent": 1.0, "system": 2.0})
    assert [row["name"] for row in job.metrics()] == ["my_system/cpu_percent", "system"]


def test_many_values_at_once_are_lines_that_the_agent_takes(job: Recorder) -> None:
    values = {f"{number}{'😀' * 190}": float(number) for number in range(5_000)}
    job.log(step=3, **values)
    lines = (job.folder / "spool/metrics.jsonl").read_bytes().splitlines()
    assert max(map(len, lines)) < CHUNK_BYTES
    told = [json.loads(line) for line in lines]
    assert {name: value for line in told for name, value in line["values"].items()} == values
    assert len({(line["t"], line["step"]) for line in told}) == 1
