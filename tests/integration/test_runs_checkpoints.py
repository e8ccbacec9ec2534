"""The next attempt goes on from the newest whole checkpoint, whatever happened to one; a torn one is named."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from atelier.records import Run
from tests.cli_driver import notebook, wait_for
from tests.service_driver import Service, write
from tests.small_disk import small_disk

TRAIN = """
    import json, os, pathlib, sys, time
    os.environ["ATELIER_CRASH_AT"] = "crash-at"
    import atelier
    job, here = atelier.current_run(), pathlib.Path(HERE)
    def wait(name):
        while not (here / name).exists():
            time.sleep(0.02)
    if job.attempt > 1:
        kept = {path.name: len(path.read_bytes()) for path in (job.resume_from or here / "nothing").glob("*.bin")}
        print("resumed from", job.resume_from and job.resume_from.name, kept)
        sys.exit()
    for step in (1, 2):
        state = pathlib.Path(f"state-{step}")
        state.mkdir()
        for name in ("a.bin", "b.bin"):
            (state / name).write_bytes(bytes([step]) * 1000 * step)
        if step == 2:
            wait("second")
            (here / "crash").exists() and pathlib.Path("crash-at").write_text((here / "crash").read_text())
        job.checkpoint(state, step=step)
        print("step", step, flush=True)
    wait("end")
    os.kill(os.getpid(), 9)
"""
Harm = Callable[[Path], object]
HARMS: dict[str, tuple[Harm, str]] = {
    "truncated": (lambda made: os.truncate(made / "a.bin", 1999), "a.bin is not what was stored"),
    "emptied": (lambda made: os.truncate(made / "b.bin", 0), "b.bin is not what was stored"),
    "flipped": (lambda made: (made / "a.bin").write_bytes(b"\x02" * 1999 + b"\x03"), "a.bin is not what was stored"),
    "longer": (lambda made: (made / "a.bin").write_bytes(b"\x02" * 2001), "a.bin is not what was stored"),
    "file gone": (lambda made: (made / "b.bin").unlink(), "b.bin is missing"),
    "manifest gone": (lambda made: (made / "MANIFEST.sha256").unlink(), "MANIFEST.sha256 is missing"),
    "manifest torn": (lambda made: os.truncate(made / "MANIFEST.sha256", 73), "MANIFEST.sha256 is not what was stored"),
    "all gone": (shutil.rmtree, "MANIFEST.sha256 is missing"),
    "a folder": (lambda made: ((made / "a.bin").unlink(), (made / "a.bin").mkdir()), "a.bin is missing"),
    "a link": (lambda made: ((made / "a.bin").unlink(), (made / "a.bin").symlink_to("b.bin")), "a.bin is missing"),
}
NEWEST = "resumed from step-0000000002 {'a.bin': 2000, 'b.bin': 2000}\n"
BEFORE = "resumed from step-0000000001 {'a.bin': 1000, 'b.bin': 1000}\n"


def begin(service: Service, folder: Path, **spec: object) -> str:
    """A run that goes on, and ends by kill -9, when files named ``second`` and ``end`` come into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    code = TRAIN.replace("HERE", repr(str(folder)))
    return service.submit(write(folder / "code", train__py=code), retries=1, **spec)


def published(service: Service, run_id: str) -> list[int]:
    """Steps of the checkpoints that the store knows of a run."""
    with sqlite3.connect(f"file:{service.home / 'db/atelier.sqlite'}?mode=ro", uri=True) as database:
        return [
            step for (step,) in database.execute("select step from checkpoints where run_id = ? order by 1", [run_id])
        ]


def second_log(service: Service, run_id: str) -> str:
    run = service.wait(run_id)
    assert run.state == "succeeded", (run.attempts, service.log(run_id))
    assert len(run.attempts) == 2
    return service.log(run_id, 2)


def skipped(run: Run) -> list[str]:
    return [text for text in run.warnings if "not whole" in text]


def test_one_that_was_harmed_where_it_is_stored_is_skipped_and_named(service: Service, tmp_path: Path) -> None:
    runs = {name: begin(service, tmp_path / name.replace(" ", "-")) for name in (*HARMS, "both", "garbage", "none")}
    for name in runs:
        (tmp_path / name.replace(" ", "-") / "second").touch()
    for name, run_id in runs.items():
        wait_for(lambda run=run_id: published(service, run) == [1, 2], f"both checkpoints of {name}", timeout_s=60)
        made = service.home / "blobs/runs" / run_id / "checkpoints"
        if name in HARMS:
            HARMS[name][0](made / "1-step-0000000002")
        elif name == "both":
            for folder in made.iterdir():
                (folder / "a.bin").unlink()
        elif name == "garbage":
            (made / "1-step-0000000002/more.bin").write_bytes(b"x" * 5)
        (tmp_path / name.replace(" ", "-") / "end").touch()
    for name, (_, told) in HARMS.items():
        assert second_log(service, runs[name]) == BEFORE, name
        assert skipped(service.run(runs[name])) == [
            f"The checkpoint of step 2 is not whole and was skipped: {told}."
        ], name
    assert second_log(service, runs["both"]) == "resumed from None {}\n"
    assert [text[:24] for text in skipped(service.run(runs["both"]))] == [f"The checkpoint of step {n}" for n in (2, 1)]
    for name in ("garbage", "none"):
        assert second_log(service, runs[name]) == NEWEST, "what is beside a checkpoint is no part of it"
        assert skipped(service.run(runs[name])) == []


@pytest.mark.parametrize("way", ["harmed", "harmed, agent killed", "agent killed"])
def test_one_that_was_not_yet_stored(service: Service, tmp_path: Path, way: str) -> None:
    """It is in the spool: whole, it is brought in by whoever comes next; harmed, it is not kept and named."""
    run_id = begin(service, tmp_path)
    wait_for(lambda: published(service, run_id) == [1], "the first checkpoint")
    (agent,) = service.agents(run_id)
    os.kill(agent, signal.SIGSTOP)
    (tmp_path / "second").touch()
    spool = service.attempt_folder(run_id) / "run/spool"
    wait_for(lambda: b'"step": 2' in (spool / "events.jsonl").read_bytes(), "the second checkpoint")
    if "harmed" in way:
        (spool / "checkpoints/step-00000002/b.bin").write_bytes(b"\x03" * 2000)
    if "killed" in way:
        os.kill(agent, signal.SIGKILL)
    else:
        (tmp_path / "end").touch()
        os.kill(agent, signal.SIGCONT)
    assert second_log(service, run_id) == (BEFORE if "harmed" in way else NEWEST)
    told = [
        text for text in service.run(run_id).warnings if "step 2 is not whole and was not kept: b.bin differs" in text
    ]
    assert len(told) == ("harmed" in way)


@pytest.mark.parametrize("point", ["recorder.copy.before:2", "recorder.publish.written", "recorder.publish.after"])
def test_a_kill_in_the_middle_leaves_the_one_before(service: Service, tmp_path: Path, point: str) -> None:
    run_id = begin(service, tmp_path)
    (tmp_path / "crash").write_text(point)
    (tmp_path / "second").touch()
    assert second_log(service, run_id) == BEFORE
    assert "step 2" not in service.log(run_id, 1)
    assert published(service, run_id) == [1]
    assert service.run(run_id).warnings == []


def test_a_full_disk_leaves_the_one_before(service: Service, tmp_path: Path) -> None:
    code = """
        import pathlib, time, atelier
        job, spool = atelier.current_run(), pathlib.Path(HERE)
        if job.attempt > 1:
            print("resumed from", job.resume_from.name, (job.resume_from / "weights").stat().st_size)
            raise SystemExit
        job.checkpoint("small/weights", step=1)
        print("begun", flush=True)
        while not (spool / "full").exists():
            time.sleep(0.02)
        job.checkpoint("big/weights", step=2)
    """
    files = tmp_path / "code"
    for name, size in (("small", 10), ("big", 6 << 20)):
        (files / name).mkdir(parents=True)
        (files / name / "weights").write_bytes(os.urandom(size))
    run_id = service.submit(write(files, train__py=code.replace("HERE", repr(str(tmp_path)))), retries=1)
    service.wait_log(run_id, "begun")
    wait_for(lambda: published(service, run_id) == [1], "the first checkpoint")
    with small_disk(service.attempt_folder(run_id) / "run/spool/checkpoints", "4m"):
        (tmp_path / "full").touch()
        wait_for(lambda: "No space left" in service.log(run_id, 1), "the disk to be full", timeout_s=30)
    run = service.wait(run_id)
    assert (run.state, run.attempts[0].reason) == ("succeeded", "disk_full"), service.log(run_id)
    assert service.log(run_id, 2) == "resumed from step-0000000001 10\n"


def test_one_step_over_and_over_keeps_the_newest(service: Service, tmp_path: Path) -> None:
    code = """
        import os, pathlib, atelier
        job = atelier.current_run()
        if job.attempt > 1:
            print((job.resume_from / "weights").read_text(), job.resume_from.name)
            raise SystemExit
        for n in range(5):
            pathlib.Path("weights").write_text(f"of {n}")
            job.checkpoint("weights", step=0)
        os.kill(os.getpid(), 9)
    """
    run_id = service.submit(write(tmp_path, train__py=code), retries=1)
    assert second_log(service, run_id) == "of 4 step-0000000000\n"
    folders = service.home / "blobs/runs" / run_id / "checkpoints"
    assert [(path.parent.parent == folders, path.read_text()) for path in folders.rglob("weights")] == [(True, "of 4")]


# -- a place that is given away ------------------------------------------------------------------------------------
CELLS = (
    """
import pathlib, time, atelier
job = atelier.current_run()
step = int(job.resume_from.name.split("-")[1]) if job.resume_from else 0
print("from step", step)
""",
    """
while step < 5:
    step += 1
    pathlib.Path("weights").write_text(str(step))
    job.log(step=step, loss=1 / step)
    job.checkpoint("weights", step=step)
    print("step", step, flush=True)
    while job.attempt == 1 and step == 2 and not job.should_stop():
        time.sleep(0.02)
    if job.should_stop():
        break
""",
    """
job.log(step=5, accuracy=step / 5)
print("evaluated at", step)
""",
)


def test_a_notebook_leaves_its_next_cells_to_the_attempt_that_goes_on(service: Service, tmp_path: Path) -> None:
    run_id = service.submit(write(tmp_path, train__ipynb=notebook(*CELLS)))
    service.wait_log(run_id, "step 2")
    (agent,) = service.agents(run_id)
    os.kill(agent, signal.SIGTERM)
    run = service.wait(run_id, patience_s=60)
    assert run.state == "succeeded", (run.attempts, service.log(run_id))
    assert [(one.state, one.reason) for one in run.attempts] == [("preempted", "preempted"), ("succeeded", None)]
    assert service.log(run_id, 1) == "from step 0\nstep 1\nstep 2\n"
    assert service.log(run_id, 2) == "from step 2\nstep 3\nstep 4\nstep 5\nevaluated at 5\n"
    points = {name: service.client.metrics(run_id, name=name)["points"] for name in ("loss", "accuracy")}
    assert [[step, value] for step, value, _ in points["loss"]] == [[n, 1 / n] for n in range(1, 6)]
    assert [[step, value] for step, value, _ in points["accuracy"]] == [[5, 1.0]]


def test_an_exit_with_75_gives_the_place_away_only_when_that_was_asked_for(service: Service, tmp_path: Path) -> None:
    code = """
        import pathlib, sys, time, atelier
        job = atelier.current_run()
        if job.resume_from:
            print("resumed from", job.resume_from.name)
            raise SystemExit
        print("begun", flush=True)
        while not (pathlib.Path(HERE) / "end").exists() and not job.should_stop():
            time.sleep(0.02)
        pathlib.Path("weights").touch()
        job.checkpoint("weights", step=7)
        sys.exit(75)
    """
    runs = {}
    for name in ("asked", "unasked"):
        script = write(tmp_path / name, train__py=code.replace("HERE", repr(str(tmp_path))))
        runs[name] = service.submit(script)
        service.wait_log(runs[name], "begun")
    os.kill(service.agents(runs["asked"])[0], signal.SIGTERM)
    run = service.wait(runs["asked"])
    assert (run.state, service.log(run.id)) == ("succeeded", "resumed from step-0000000007\n")
    assert [(one.state, one.exit_code) for one in run.attempts] == [("preempted", 75), ("succeeded", 0)]
    (tmp_path / "end").touch()
    run = service.wait(runs["unasked"])
    assert (run.state, run.reason, run.attempts[0].exit_code, len(run.attempts)) == ("failed", "code_error", 75, 1)


def test_a_computer_that_goes_down_tells_all_in_any_order(service: Service, tmp_path: Path) -> None:
    """The work dies of the signal before its agent has it: that is no failure of the code."""
    waits = "while atelier.current_run().attempt == 1:\n    print('begun', flush=True)\n    time.sleep(60)"
    code = f"import time, atelier\n{waits}"
    runs = [
        service.submit(write(tmp_path / "script", train__py=code)),
        service.submit(write(tmp_path / "notebook", train__ipynb=notebook(code))),
    ]
    for run_id in runs:
        service.wait_log(run_id, "begun")
        (agent,) = service.agents(run_id)
        for pid in service.of_attempt(run_id):
            if pid != agent:
                os.kill(pid, signal.SIGTERM)
        time.sleep(0.2)
        os.kill(agent, signal.SIGTERM)
    for run_id in runs:
        run = service.wait(run_id, patience_s=60)
        assert run.state == "succeeded", (run.attempts, service.log(run_id))
        assert [(one.state, one.reason) for one in run.attempts] == [("preempted", "preempted"), ("succeeded", None)]


def watch(service: Service, run_id: str, heard: list[str]) -> None:
    """Collect the types of what a view hears of a run, until it is final."""
    for event in service.client.events(run_id):
        heard.append(event.type)
        if event.type == "run" and event.data["ended_at"] is not None and event.data["state"] == "succeeded":
            return


def test_a_step_of_two_attempts_is_told_once(service: Service, tmp_path: Path) -> None:
    """Killed between what it logged of a step and the checkpoint of it, a training logs that step again."""
    code = """
        import os, pathlib, atelier
        job = atelier.current_run()
        pathlib.Path("weights").touch()
        first = int(job.resume_from.name.split("-")[1]) if job.resume_from else 0
        for step in range(first, 6):
            job.log(step=step, loss=job.attempt)
            if job.attempt == 1 and step == 4:
                os.kill(os.getpid(), 9)
            if step == 2:
                job.checkpoint("weights", step=step + 1)
    """
    run_id = service.submit(write(tmp_path, train__py=code), retries=1)
    heard: list[str] = []
    watching = threading.Thread(target=watch, args=(service, run_id, heard))
    watching.start()
    run = service.wait(run_id)
    assert (run.state, len(run.attempts)) == ("succeeded", 2), service.log(run.id)
    watching.join(30)
    assert heard.count("open") == 2, "a view reads the curves anew when the second attempt begins to tell"
    wanted = [[0, 1], [1, 1], [2, 1], [3, 2], [4, 2], [5, 2]]
    assert [point[:2] for point in service.client.metrics(run.id, name="loss")["points"]] == wanted
    assert [point[:2] for point in service.client.metrics(run.id)["names"]["loss"]["points"]] == wanted
