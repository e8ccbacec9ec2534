"""An agent that wakes after its attempt was replaced changes nothing, neither by the service nor in the blob store."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import time
from pathlib import Path

from atelier.wire import API
from tests.cli_driver import wait_for
from tests.service_driver import Service, lives, write

WORK = """
    import pathlib, time, atelier
    job = atelier.current_run()
    job.log(step=1, loss=float(job.attempt))
    print("attempt", job.attempt, flush=True)
    state = pathlib.Path("state"); state.mkdir()
    (state / "n").write_text(str(job.attempt))
    job.checkpoint(state, step=1)
    pathlib.Path("out.txt").write_text(f"of {job.attempt}")
    job.save("out.txt")
    if job.attempt == 1:
        with open("big.bin", "wb") as stream:
            stream.truncate(SIZE)
        job.save("big.bin")
        for n in range(100_000):
            print("still here", n, flush=True)
            time.sleep(0.01)
"""
SIZE = 400 << 20


def files_below(folder: Path) -> dict[str, str]:
    """Path → sha256, of all files."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def wait_for_half(folder: Path) -> Path:
    """The large file that an agent is just sending there."""
    deadline = time.monotonic() + 30
    while True:
        for path in folder.glob(".part-*") if folder.exists() else ():
            with contextlib.suppress(FileNotFoundError):  # it was a smaller one
                if path.stat().st_size > 1 << 20:
                    return path
        assert time.monotonic() < deadline, "waited 30 s for the agent to send its file"
        time.sleep(0.001)


def test_an_agent_that_wakes_too_late_changes_nothing(service: Service, tmp_path: Path) -> None:
    """It is stopped while it writes a file to where the service has told it, and wakes when the run is over."""
    work = write(tmp_path, train__py=WORK.replace("SIZE", str(SIZE)))
    run_id = service.submit(work, retries=1)
    folder = service.home / "blobs/runs" / run_id
    service.wait_log(run_id, "attempt 1")
    agents = service.agents(run_id)
    half = wait_for_half(folder / "attempts/1/incoming")
    for pid in agents:
        os.kill(pid, signal.SIGSTOP)
    assert half.stat().st_size < SIZE, "it was stopped too late"
    token = (service.attempt_folder(run_id) / "token").read_text()
    with service.http as http:
        lost = {"state": "lost", "reason": "agent_lost"}
        answer = http.post(f"{API}/agent/finish", headers={"Authorization": f"run {token}"}, json=lost)
    assert answer.json() == {"state": "queued"}
    run = service.wait(run_id)
    assert [(attempt.state, attempt.reason) for attempt in run.attempts] == [
        ("lost", "agent_lost"),
        ("succeeded", None),
    ]
    assert service.content(run_id, "out.txt") == b"of 2"
    before, record, kept = files_below(folder), service.client.run(run_id), service.artifacts(run_id)
    assert not [path for path in before if "incoming" in path]
    assert any(lives(pid) for pid in agents), "it was ended before it could wake"
    for pid in agents:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: not any(lives(pid) for pid in agents), "the agent that woke to end")
    assert files_below(folder) == before
    assert (service.client.run(run_id), service.artifacts(run_id)) == (record, kept)
    assert service.log(run_id, 2) == "attempt 2\n"
    assert service.log(run_id, 1).startswith("attempt 1\n")
