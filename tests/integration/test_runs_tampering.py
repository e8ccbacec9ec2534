"""A run that removes, replaces or empties what its agent reads: what can be kept is, and the rest is told."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.cli_driver import wait_for
from tests.service_driver import Service, write

WORK = """
    import os, pathlib, shutil, subprocess, sys, time, atelier
    spool = pathlib.Path(os.environ["ATELIER_RUN_DIR"], "spool")
    job = atelier.current_run()
    for n in range(3):
        print("before", n, flush=True)
        job.log(step=n, loss=n)
    job.warn("first")
    HARM
    for n in range(3, 6):
        print("after", n, flush=True)
        job.log(step=n, loss=n)
    job.warn("last")
"""
PRINTED = "".join(f"{'before' if n < 3 else 'after'} {n}\n" for n in range(6))
HARMS = {
    "unlinked": "[(spool / name).unlink() for name in ('log', 'metrics.jsonl', 'events.jsonl')]",
    "moved": "[(spool / name).rename(name) for name in ('log', 'metrics.jsonl', 'events.jsonl')]",
    "linked": "(spool / 'log').unlink(); (spool / 'log').symlink_to('/etc/passwd')",
    "a pipe": "(spool / 'log').unlink(); os.mkfifo(spool / 'log')",
    "removed": "shutil.rmtree(spool)",
    "a link as the spool": "spool.rename('away'); os.mkdir('other'); spool.symlink_to(os.path.abspath('other'))",
}


def harmed(folder: Path, harm: str) -> Path:
    return write(folder, train__py=WORK.replace("HARM", harm))


def steps(service: Service, run_id: str) -> list[int]:
    return [point[0] for point in service.client.metrics(run_id, name="loss")["points"]]


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_nothing_is_lost_with_a_name(service: Service, tmp_path: Path, harm: str) -> None:
    run = service.finish(harmed(tmp_path, harm))
    assert (run.state, run.warnings) == ("succeeded", ["first", "last"])
    assert service.log(run.id) == PRINTED
    assert steps(service, run.id) == list(range(6))
    assert any(path.startswith("tensorboard/") for path in service.artifacts(run.id))


def test_what_is_told_to_another_file_is_told_to_be_lost(service: Service, tmp_path: Path) -> None:
    harm = """
    for name in ("metrics.jsonl", "events.jsonl"):
        (spool / name).unlink()
        (spool / name).write_text("{}\\\\n")
""".replace("\n    ", "\n        ")
    run = service.finish(harmed(tmp_path, "if True:" + harm.rstrip()))
    assert run.state == "succeeded", service.log(run.id)
    assert steps(service, run.id) == list(range(6))
    told = sorted(text for text in run.warnings if "was replaced by the run" in text)
    assert [text.split()[2] for text in told] == ["events.jsonl", "metrics.jsonl"], run.warnings
    assert {"first", "last"} <= set(run.warnings)


def test_what_is_told_after_the_spool_was_removed_is_kept(service: Service, tmp_path: Path) -> None:
    work = write(
        tmp_path,
        train__py="""
            import os, shutil, atelier
            shutil.rmtree(os.path.join(os.environ["ATELIER_RUN_DIR"], "spool"))
            job = atelier.current_run()
            job.log(step=1, loss=1)
            job.save(__file__, name="saved.py")
            print("printed")
        """,
    )
    run = service.finish(work)
    assert (run.state, run.warnings) == ("succeeded", [])
    assert service.log(run.id) == "printed\n"
    assert steps(service, run.id) == [1]
    assert "saved.py" in service.artifacts(run.id)


def test_a_log_that_was_emptied_goes_on_and_is_told(service: Service, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    wait = f"while not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.02)\n"
    empty = "    for name in ('log', 'metrics.jsonl'): os.truncate(spool / name, 0)\n    time.sleep(1)"
    run_id = service.submit(harmed(tmp_path, f"{wait}{empty}"))
    wait_for(lambda: service.client.metrics(run_id)["names"].get("loss", {}).get("count") == 3, "three points")
    service.wait_log(run_id, "before 2")
    gate.touch()
    run = service.wait(run_id)
    assert run.state == "succeeded"
    assert service.log(run_id) == PRINTED
    assert steps(service, run_id) == list(range(6))
    told = sorted(text.split()[2] for text in run.warnings if "was cut short" in text)
    assert told == ["log", "metrics.jsonl"], run.warnings


def test_what_a_frozen_agent_had_not_read_is_told(service: Service, tmp_path: Path) -> None:
    """It was ended in the middle of its run, because the user did not want to wait for it."""
    gate = tmp_path / "gate"
    wait = f"while not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.02)\n"
    run_id = service.submit(harmed(tmp_path, f"{wait}    pass"))
    service.wait_log(run_id, "before 2")
    (agent,) = service.agents(run_id)
    os.kill(agent, signal.SIGSTOP)
    gate.touch()
    service.client.cancel(run_id, now=True)
    run = service.wait(run_id, patience_s=90)
    assert run.state == "cancelled"
    assert any("had not read yet" in text for text in run.warnings), run.warnings


def test_what_was_lost_with_an_agent_that_alone_held_it_is_told(service: Service, tmp_path: Path) -> None:
    run_id = service.submit(harmed(tmp_path, HARMS["removed"] + "; time.sleep(60)"))
    service.wait_log(run_id, "before 2")
    wait_for(lambda: not (service.attempt_folder(run_id) / "run/spool").exists(), "the spool to go")
    (agent,) = service.agents(run_id)
    os.kill(agent, signal.SIGKILL)
    run = service.wait(run_id)
    assert run.state == "lost"
    assert service.log(run_id).startswith("before 0\nbefore 1\nbefore 2\n")
    assert any(text.startswith("The file log in the run's spool was cut short") for text in run.warnings), run.warnings


def test_a_work_whose_log_has_no_name_is_no_silent_one(service: Service, tmp_path: Path) -> None:
    lines = "\n".join(["for n in range(35):", "        print('alive', flush=True)", "        time.sleep(0.2)"])
    run = service.finish(harmed(tmp_path, f"{HARMS['unlinked']}\n    {lines}"), stall_timeout_s=4)
    assert run.state == "succeeded", run
    assert service.log(run.id).count("alive") == 35
