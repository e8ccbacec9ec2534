"""What a full disk takes of what code tells: it is counted where the agent reads it, and spoils no other line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from atelier.recorder import Recorder

FULL = """
import os, resource, signal
from pathlib import Path
from atelier.recorder import Recorder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
job, other = (Recorder(Path("run"), run_id="r", in_run=True) for _ in range(2))
def room(more=None):
    size = os.path.getsize("run/spool/metrics.jsonl")
    most = resource.RLIM_INFINITY if more is None else size + more
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
other.log(step=0, loss=0.5)
job.log(step=1, loss=0.5)
"""


def run(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", FULL + program], cwd=folder, capture_output=True, text=True, timeout=60, check=True
    )


def steps(folder: Path) -> list[int]:
    """The steps of what was logged: each line is a whole one."""
    return [json.loads(line)["step"] for line in (folder / "run/spool/metrics.jsonl").read_bytes().splitlines()]


def lost(folder: Path) -> int:
    return int((folder / "run/spool/metrics.jsonl.lost").read_bytes())


def test_a_line_that_was_begun_spoils_no_line_of_another_process(tmp_path: Path) -> None:
    run(tmp_path, "room(20)\njob.log(step=2, loss=0.5)\nroom()\nother.log(step=3, loss=0.5)\njob.log(step=4, loss=0.5)")
    assert steps(tmp_path) == [0, 1, 3, 4]
    assert lost(tmp_path) == 1


def test_a_line_that_a_dead_process_had_begun_spoils_no_other(tmp_path: Path) -> None:
    run(tmp_path, "os.write(job._metrics._descriptor, b'{\"t\":12')")
    Recorder(tmp_path / "run", run_id="r", in_run=True).log(step=5, loss=0.5)
    lines = (tmp_path / "run/spool/metrics.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["step"] for line in lines if line != b'{"t":12'] == [0, 1, 5]


def test_all_lines_that_are_lost_are_counted_also_of_children_and_of_who_is_killed(tmp_path: Path) -> None:
    program = """
room(20)
children = [os.fork() for _ in range(3)]
for step in range(50):
    job.log(step=step, loss=0.5)
if 0 in children:
    os.kill(os.getpid(), signal.SIGKILL)
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
room()
job.log(step=6, loss=0.5)
"""
    run(tmp_path, program)
    assert steps(tmp_path) == [0, 1, 6]
    assert lost(tmp_path) == 8 * 50


def test_what_is_lost_from_the_first_line_on_is_counted_once_there_is_room(tmp_path: Path) -> None:
    spool = tmp_path / "run/spool"
    spool.mkdir(parents=True)
    (spool / "events.jsonl").symlink_to("/dev/full")
    job = Recorder(tmp_path / "run", run_id="r", in_run=True)
    for step in range(3):
        job.progress(step, 3)
    assert int((spool / "events.jsonl.lost").read_bytes()) == 3
    assert not (spool / "metrics.jsonl.lost").exists()


def test_outside_a_run_nothing_more_is_written(tmp_path: Path) -> None:
    job = Recorder(tmp_path / ".atelier/x", run_id="x")
    job.log(loss=0.5)
    assert [path.name for path in (tmp_path / ".atelier/x/spool").iterdir()] == ["metrics.jsonl"]
