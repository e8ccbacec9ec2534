"""Processes, disks and clocks fail while runs work: the runs end once, truthfully, with all that they had told."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from atelier.wire import API
from tests.chaos.mortal import FULL, Mortal, Row, mortal_over
from tests.chaos.works import book, script
from tests.service_driver import SETTINGS, command_of, lives
from tests.small_disk import small_disk

AWAY_S = 60.0 if FULL else 3.0
"""How long a service that is not started again at once, or a disk that takes nothing, stays so."""

MANY = 200 if FULL else 20
JUMPS = [("service", "+3600"), ("service", "-3600"), ("agent", "+3600"), ("agent", "-3600")]
CLOCK = Path(__file__).with_name("clock")
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
LIFE_S = 3.0
"""A service that is killed again and again lives for so long."""


@pytest.fixture(scope="module")
def place() -> Iterator[Mortal]:
    with mortal_over() as place:
        yield place


def begun(place: Mortal, work: Path, *, key: str, **spec: object) -> str:
    """The id of a run whose code has logged something; the clock of its row begins."""
    run_id = place.submit(work, key=key, machine="gpu", **spec)
    witness = work.parent / "witness"
    place.until(lambda: witness.exists() and "metric 0" in witness.read_text(), f"{key} to work")
    place.began = time.monotonic()
    return run_id


def kill(pids: list[int]) -> None:
    assert pids
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kernels(place: Mortal, run_id: str) -> list[int]:
    return [pid for pid in place.service.of_attempt(run_id) if b"kernel_launcher" in command_of(pid)]


# -- processes -----------------------------------------------------------------------------------------------------
def test_the_service_is_away(place: Mortal, tmp_path: Path) -> None:
    run_id = begun(place, script(tmp_path, pause_s=0.5), key="away")
    place.service.kill()
    time.sleep(AWAY_S)
    run = place.check(run_id, tmp_path, f"service killed, and away for {AWAY_S:.0f} s")
    assert (run.state, len(run.attempts)) == ("succeeded", 1)


def test_an_agent_is_killed(place: Mortal, tmp_path: Path) -> None:
    run_id = begun(place, script(tmp_path, pause_s=1), key="agent", retries=1)
    kill(place.service.agents(run_id))
    run = place.check(run_id, tmp_path, "agent killed, one retry")
    assert [attempt.state for attempt in run.attempts] == ["lost", "succeeded"]


def test_an_agent_is_killed_and_nobody_tries_again(place: Mortal, tmp_path: Path) -> None:
    run_id = begun(place, script(tmp_path, pause_s=1), key="agent alone")
    kill(place.service.agents(run_id))
    run = place.check(run_id, tmp_path, "agent killed, no retry")
    assert (run.state, run.reason) == ("lost", "agent_lost")


def test_a_kernel_is_killed(place: Mortal, tmp_path: Path) -> None:
    run_id = begun(place, book(tmp_path, pause_s=1), key="kernel", retries=1)
    kill(kernels(place, run_id))
    run = place.check(run_id, tmp_path, "kernel killed, one retry")
    assert [attempt.state for attempt in run.attempts] == ["failed", "succeeded"]
    assert run.attempts[0].reason == "killed"


def test_an_agent_dies_while_the_service_is_dead(place: Mortal, tmp_path: Path) -> None:
    run_id = begun(place, script(tmp_path, pause_s=1), key="both", retries=1)
    place.service.kill()
    kill(place.service.agents(run_id))
    run = place.check(run_id, tmp_path, "service killed, then the agent, one retry")
    assert [attempt.state for attempt in run.attempts] == ["lost", "succeeded"]


def test_everything_is_killed_at_once(place: Mortal, tmp_path: Path) -> None:
    """As a loss of power does it, but for what a disk forgets that said it had written."""
    first = begun(place, script(tmp_path / "script", pause_s=1), key="all 1", retries=1)
    waiting = place.submit(script(tmp_path / "waiting"), key="all 2", machine="gpu")
    assert place.service.process is not None
    kill([place.service.process.pid, *place.service.of_attempt(first)])
    place.service.process.wait(timeout=10)
    run = place.check(first, tmp_path / "script", "everything killed at once, one retry")
    assert [attempt.state for attempt in run.attempts] == ["lost", "succeeded"]
    run = place.check(waiting, tmp_path / "waiting", "everything killed at once, in the queue")
    assert (run.state, len(run.attempts)) == ("succeeded", 1)


def test_an_agent_that_was_stopped_wakes_when_it_was_replaced(place: Mortal, tmp_path: Path) -> None:
    run_id = begun(place, script(tmp_path, pause_s=1), key="stopped", retries=1)
    agents, folder = place.service.agents(run_id), place.service.attempt_folder(run_id)
    token = (folder / "token").read_text()
    for pid in agents:
        os.kill(pid, signal.SIGSTOP)
    with place.service.http as http:
        lost = {"state": "lost", "reason": "agent_lost"}
        answer = http.post(f"{API}/agent/finish", headers={"Authorization": f"run {token}"}, json=lost)
    assert answer.status_code == 200, answer.text
    place.until(lambda: len(place.service.run(run_id).attempts) == 2, "the next attempt")
    for pid in agents:
        with contextlib.suppress(ProcessLookupError):  # the service may have ended it
            os.kill(pid, signal.SIGCONT)
    run = place.check(run_id, tmp_path, "agent stopped, replaced and woken", unheard={1})
    assert [attempt.state for attempt in run.attempts] == ["lost", "succeeded"]
    place.until(lambda: not any(map(lives, agents)), "the agent that woke to end")


# -- the queue -----------------------------------------------------------------------------------------------------
def test_many_wait_while_the_service_is_killed_again_and_again(tmp_path: Path) -> None:
    with mortal_over(SETTINGS + "limits: {runs_per_user: 8}\n") as place:
        ids = {}
        for number in range(MANY):
            folder = tmp_path / str(number)
            ids[place.submit(script(folder, pause_s=0.02), key=f"run {number}")] = folder
        place.began = time.monotonic()
        deadline = time.monotonic() + 800
        while not all(place.until(lambda one=one: place.service.run(one), "a record").state.is_final for one in ids):
            assert time.monotonic() < deadline, "the runs did not end"
            time.sleep(LIFE_S)
            place.service.kill()
        runs = [place.check(run_id, folder, "", keeps_row=False) for run_id, folder in ids.items()]
        assert {run.state for run in runs} == {"succeeded"}
        assert {len(run.attempts) for run in runs} == {1}
        assert sorted(place.service.ids()) == sorted(ids)
        assert place.deaths > 1
        fault = f"{MANY} runs queued, service killed {place.deaths} times"
        Row(fault, "succeeded", "", 1, f"{MANY} times all of it", time.monotonic() - place.began).keep()


# -- disks ---------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def on_a_small_disk(name: str) -> Iterator[tuple[Mortal, Path]]:
    """A service of whose home one folder lies on a disk of 40 MiB."""
    with mortal_over() as place:
        place.service.stop()
        folder = place.service.home / name
        with tempfile.TemporaryDirectory() as kept:
            subprocess.run(["cp", "-a", f"{folder}/.", kept], check=True)
            with small_disk(folder, "40m"):
                subprocess.run(["cp", "-a", f"{kept}/.", str(folder)], check=True)
                place.revive()
                yield place, folder
                place.settle()
                place.service.stop()
                subprocess.run(["cp", "-a", f"{folder}/.", kept], check=True)
            subprocess.run(["cp", "-a", f"{kept}/.", str(folder)], check=True)
        place.revive()


@pytest.mark.parametrize("name", ["blobs", "db"])
def test_the_disk_of_the_service_is_full_for_a_while(name: str, tmp_path: Path) -> None:
    with on_a_small_disk(name) as (place, folder):
        run_id = begun(place, script(tmp_path, pause_s=1), key=name)
        weight = folder / "weight"
        with contextlib.suppress(OSError), weight.open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(4096))
        assert os.statvfs(folder).f_bavail == 0
        time.sleep(AWAY_S)
        weight.unlink()
        run = place.check(run_id, tmp_path, f"disk of {name} full for {AWAY_S:.0f} s")
        assert (run.state, len(run.attempts)) == ("succeeded", 1), run.warnings


def test_the_disk_of_the_blobs_is_read_only_for_a_while(tmp_path: Path) -> None:
    with on_a_small_disk("blobs") as (place, folder):
        run_id = begun(place, script(tmp_path, pause_s=1), key="ro")
        place.until(lambda: remount(folder, "ro"), "a moment in which nothing is written")
        time.sleep(AWAY_S)
        assert remount(folder, "rw")
        run = place.check(run_id, tmp_path, f"disk of blobs read-only for {AWAY_S:.0f} s")
        assert (run.state, len(run.attempts)) == ("succeeded", 1), run.warnings


def remount(folder: Path, how: str) -> bool:
    """Whether a disk could be made read-only, or writable again: not while a file on it is open to be written."""
    argv = ["mount", "-o", f"remount,{how}", str(folder)]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


# -- clocks --------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def clocks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mortal, dict[str, Path]]]:
    """A service whose clock and whose agents' clocks can be set, each by a file."""
    library = os.environ.get("ATELIER_TEST_FAKETIME") or FAKETIME
    if not Path(library).exists():
        (pytest.fail if os.geteuid() == 0 else pytest.skip)("libfaketime is not installed: `make test` installs it")
    folder = tmp_path_factory.mktemp("clocks")
    files = {who: folder / who for who in ("service", "agent")}
    for file in files.values():
        file.write_text("+0")
    wrapper = folder / "python"
    faked = " ".join(f"{name}={value}" for name, value in fake_clock(library, files["agent"]).items())
    wrapper.write_text(f'#!/bin/sh\nexport PYTHONPATH="{CLOCK}:$PYTHONPATH" {faked}\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    path = os.pathsep.join([str(CLOCK), *sys.path])
    with mortal_over(**fake_clock(library, files["service"]), PYTHONPATH=path) as place:
        place.service.stop()
        place.service.agents_python = wrapper
        place.revive()
        yield place, files


def fake_clock(library: str, file: Path) -> dict[str, str]:
    """The environment of processes whose time of day is off by what a file says, as a computer's is that was set."""
    return {
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }


@pytest.mark.parametrize(("whose", "jump"), JUMPS if FULL else JUMPS[::3])
def test_a_clock_jumps(clocks: tuple[Mortal, dict[str, Path]], whose: str, jump: str, tmp_path: Path) -> None:
    """Neither limit is reached by it, nothing is taken for silent, and what is told before and after is all there."""
    place, files = clocks
    limits = {"timeout_s": 600, "stall_timeout_s": 300, "queue_timeout_s": 600}
    run_id = begun(place, script(tmp_path, pause_s=1), key=f"{whose} {jump}", **limits)
    files[whose].write_text(jump)
    try:
        run = place.check(run_id, tmp_path, f"clock of the {whose} jumps by {jump} s")
        assert (run.state, len(run.attempts)) == ("succeeded", 1), run
        place.settle()
    finally:
        files[whose].write_text("+0")


def test_a_clock_that_goes_back_keeps_no_run_from_its_next_attempt(
    clocks: tuple[Mortal, dict[str, Path]], tmp_path: Path
) -> None:
    place, files = clocks
    run_id = begun(place, script(tmp_path, pause_s=1), key="retry", retries=1)
    kill(place.service.agents(run_id))
    place.until(lambda: place.service.run(run_id).state == "queued", "the wait for the next attempt")
    files["service"].write_text("-3600")
    try:
        run = place.check(run_id, tmp_path, "clock of the service goes back before a retry")
        assert [attempt.state for attempt in run.attempts] == ["lost", "succeeded"]
    finally:
        files["service"].write_text("+0")
