"""The service is there and fails: a full disk of its own, an image that went, agents that die at each try."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli_driver import wait_for
from tests.service_driver import IMPATIENT, Service, service_over, write
from tests.small_disk import small_disk

WORK = """
    import pathlib, sys, time, atelier
    job = atelier.current_run()
    print("working", flush=True)
    while not pathlib.Path(GATE).exists():
        time.sleep(0.02)
    pathlib.Path("weights").write_bytes(b"w" * 100_000)
    pathlib.Path("written.txt").write_text("written")
    for step in range(100):
        job.log(step=step, loss=step)
    job.checkpoint("weights", step=1)
    job.save("weights", name="saved.bin")
    job.warn("a word of the code")
    print("the last line", flush=True)
"""


def gated(folder: Path) -> tuple[Path, Path]:
    """A script that waits for a file and then tells of everything; the file."""
    gate = folder / "gate"
    return write(folder, train__py=WORK.replace("GATE", repr(str(gate)))), gate


@pytest.fixture(scope="module")
def small() -> Iterator[Service]:
    """A service whose blobs lie on a disk of 8 MiB of their own."""
    with tempfile.TemporaryDirectory(prefix="atl-") as home:
        blobs = Path(home) / "blobs"
        blobs.mkdir()
        with small_disk(blobs, "8m"), service_over(Path(home), settings=IMPATIENT) as place:
            yield place


def fill(service: Service) -> Path:
    """Leave no byte free on the disk of the blobs; the file to remove for it."""
    ballast = service.home / "blobs/ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))
    assert os.statvfs(ballast).f_bavail == 0
    return ballast


def faults(service: Service) -> int:
    """How often the service has said that its disk is full."""
    return service.service_log.count("No space left on device")


def wait_faults(service: Service, count: int) -> None:
    before = faults(service)
    wait_for(lambda: faults(service) >= before + count, f"{count} more tries to fail", timeout_s=60)


def test_a_full_disk_of_the_service_is_waited_for(small: Service, tmp_path: Path) -> None:
    script, gate = gated(tmp_path)
    run_id = small.submit(script)
    small.wait_log(run_id, "working")
    ballast = fill(small)
    gate.touch()
    wait_for((small.attempt_folder(run_id) / "result.json").exists, "the work to end, whatever the service does")
    agents = small.agents(run_id)
    wait_faults(small, 5)
    assert small.run(run_id).state == "running"
    ballast.unlink()
    run = small.wait(run_id)
    assert (run.state, len(run.attempts)) == ("succeeded", 1), run
    assert len(agents) == 1
    assert small.log(run_id) == "working\nthe last line\n"
    assert [point[0] for point in small.client.metrics(run_id, name="loss")["points"]] == list(range(100))
    assert {"saved.bin", "written.txt"} <= set(small.artifacts(run_id))
    assert small.content(run_id, "saved.bin") == b"w" * 100_000
    assert [path.name for path in (small.home / "blobs/runs" / run_id / "checkpoints").rglob("weights")] == ["weights"]
    assert [text for text in run.warnings if "is asked again" not in text] == ["a word of the code"]
    assert not list((small.home / "blobs").rglob(".part-*"))


def test_a_work_waits_for_a_disk_that_is_full_when_it_begins(small: Service, tmp_path: Path) -> None:
    """The agent's orders are there, and the service can't note that the work begins."""
    code = "import time, pathlib\nwhile not pathlib.Path(GATE).exists(): time.sleep(0.02)\n"
    first, gate = tmp_path / "gate", tmp_path / "gate"
    blocking = small.submit(write(tmp_path, train__py=code.replace("GATE", repr(str(gate)))), machine="whole")
    small.wait(blocking, "running")
    run_id = small.submit(write(tmp_path / "next", train__py="print('ran')"), machine="whole")
    ballast = fill(small)
    first.touch()
    wait_faults(small, 4)
    ballast.unlink()
    assert small.wait(blocking).state == "succeeded"
    assert small.wait(run_id).state == "succeeded"
    assert small.log(run_id) == "ran\n"


def test_a_cancelled_run_waits_only_a_while_for_what_can_not_be_stored(small: Service, tmp_path: Path) -> None:
    """Its log and its end fit; a file that is larger than the disk never does."""
    big = "open('big.bin', 'wb').write(bytes(20_000_000))\nprint('ended', flush=True)"
    run_id = small.submit(write(tmp_path, train__py=big))
    wait_for((small.attempt_folder(run_id) / "result.json").exists, "the work to end")
    small.wait_log(run_id, "ended")
    told = (
        "The service can't store what the run tells, and is asked again: The storage can't take it now: No space left"
    )
    wait_for(lambda: any(told in text for text in small.run(run_id).warnings), "the wait to be told", timeout_s=90)
    assert small.run(run_id).state == "running"
    small.client.cancel(run_id, now=True)
    run = small.wait(run_id, patience_s=90)
    assert run.state == "succeeded"
    assert "big.bin" not in small.artifacts(run_id)
    assert any("big.bin was not kept" in text and "No space left" in text for text in run.warnings), run.warnings


# -- agents that die ----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def own() -> Iterator[Service]:
    """A service that is killed and started again; each test leaves it running."""
    with service_over(settings=IMPATIENT) as place:
        yield place


def end_away(service: Service, folder: Path) -> str:
    """A run whose work came to its end while the service was away, and whose agent then died; the service is away."""
    script, gate = gated(folder)
    run_id = service.submit(script)
    service.wait_log(run_id, "working")
    service.kill()
    gate.touch()
    wait_for((service.attempt_folder(run_id) / "result.json").exists, "the end of the work, without a service")
    for pid in service.agents(run_id):
        os.kill(pid, signal.SIGKILL)
    return run_id


def test_what_a_dead_agent_left_is_brought_in_without_its_image(own: Service, tmp_path: Path) -> None:
    run_id = end_away(own, tmp_path)
    before = own.settings
    own.settings = before.replace("name: plain", "name: other")
    try:
        own.start()
        run = own.wait(run_id)
    finally:
        own.settings = before
        own.kill()
        own.start()
    assert (run.state, run.warnings) == ("succeeded", ["a word of the code"])
    assert own.log(run_id) == "working\nthe last line\n"
    assert {"saved.bin", "written.txt"} <= set(own.artifacts(run_id))


def test_a_written_end_stands_though_nobody_can_bring_in_the_rest(own: Service, tmp_path: Path) -> None:
    """Every agent that takes over dies at once; what it can't bring in is kept, and goes with the run."""
    run_id = end_away(own, tmp_path)
    spool = own.attempt_folder(run_id) / "run"
    spool.rename(spool.with_name("run.away"))
    spool.write_text("no folder")
    own.start()
    run = own.wait(run_id, patience_s=90)
    assert (run.state, run.attempts[0].state, run.attempts[0].exit_code) == ("succeeded", "succeeded", 0)
    kept = own.home / "run/undelivered" / run_id / "1"
    assert any(str(kept) in text for text in run.warnings), run.warnings
    assert (kept / "run.away/spool/log").read_text() == "working\nthe last line\n"
    assert (own.home / "blobs/runs" / run_id / "attempts/1/result.json").exists()
    wait_for(lambda: not own.attempt_folder(run_id).exists(), "the attempt's place to be free")
    own.kill()
    own.start()
    assert own.finish(write(tmp_path / "next", train__py="1")).state == "succeeded"
    assert kept.exists()
    own.client.remove(run_id)
    own.kill()
    own.start()
    wait_for(lambda: not kept.parent.exists(), "what was kept to go with its run")
