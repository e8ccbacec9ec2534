"""Programs that are kept alive, processes found by their mark, and what a disk says."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from atelier.local import processes
from atelier.up.platform import explain
from atelier.up.supervisor import Keeper, Program


async def _until(condition: Callable[[], bool], timeout_s: float = 5) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        await asyncio.sleep(0.01)


def _program(folder: Path, code: str, **rest: object) -> Program:
    return Program("toy", (sys.executable, "-c", code), folder / "toy.log", **rest)  # type: ignore[arg-type]


def test_a_killed_program_runs_again(tmp_path: Path) -> None:
    said: list[str] = []
    restarted: list[bool] = []

    async def note() -> None:
        restarted.append(True)

    async def scenario() -> None:
        keeper = Keeper(_program(tmp_path, "import time; time.sleep(60)", after_restart=note), said.append)
        keeper.begin()
        await _until(lambda: keeper.pid is not None)
        first = keeper.pid
        keeper.signal(signal.SIGKILL)
        await _until(lambda: keeper.pid not in (None, first))
        await _until(lambda: bool(restarted))
        await keeper.stop()
        await keeper.stop()
        assert keeper.pid is None

    asyncio.run(scenario())
    assert said == [f"The toy was killed by SIGKILL; starting it again. Its log: {tmp_path / 'toy.log'}"]


def test_a_program_that_cannot_live_is_tried_ever_less_often(tmp_path: Path) -> None:
    said: list[str] = []

    async def scenario() -> int:
        keeper = Keeper(_program(tmp_path, "print('no', flush=True); raise SystemExit(3)"), said.append)
        keeper.begin()
        await asyncio.sleep(1.2)
        await keeper.stop()
        return keeper.failures

    failures = asyncio.run(scenario())
    assert 1 <= failures <= 4
    assert "ended with code 3 (no); starting it again" in said[0]
    assert (tmp_path / "toy.log").read_text().startswith("no\n")


def test_the_error_of_a_program_is_told_without_its_hint(tmp_path: Path) -> None:
    said: list[str] = []
    words = r"print('busy\nerror[database_locked]: process 7 has it.\nEnd that.', flush=True); raise SystemExit(3)"

    async def scenario() -> None:
        keeper = Keeper(_program(tmp_path, words), said.append)
        keeper.begin()
        await _until(lambda: bool(said))
        await keeper.stop()

    asyncio.run(scenario())
    assert "ended with code 3 (error[database_locked]: process 7 has it.); starting it again" in said[0]


def test_a_program_that_is_not_there_is_said(tmp_path: Path) -> None:
    said: list[str] = []

    async def scenario() -> None:
        keeper = Keeper(Program("toy", ("/nowhere/toy",), tmp_path / "toy.log"), said.append)
        keeper.begin()
        await _until(lambda: bool(said))
        await keeper.stop()

    asyncio.run(scenario())
    assert "can't be started" in said[0]


def test_a_program_deaf_to_sigterm_is_killed(tmp_path: Path) -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )

    async def scenario() -> None:
        keeper = Keeper(_program(tmp_path, code, patience_s=0.2), lambda _: None)
        keeper.begin()
        await _until(lambda: (tmp_path / "toy.log").exists() and bool((tmp_path / "toy.log").read_text()))
        await keeper.stop()
        assert keeper.pid is None

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_programs_end_with_their_supervisor(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys; from pathlib import Path; from atelier.up.supervisor import Keeper, Program\n"
        "async def main():\n"
        "    keeper = Keeper(Program('toy', ('sleep', '60'), Path(sys.argv[1])), print)\n"
        "    keeper.begin()\n"
        "    while keeper.pid is None: await asyncio.sleep(0.01)\n"
        "    print(keeper.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())"
    )
    supervisor = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    )
    with supervisor:
        child = int(supervisor.stdout.readline())  # type: ignore[union-attr]
        supervisor.kill()
    deadline = time.monotonic() + 5
    while processes.started_at(child) and "(sleep) Z" not in Path(f"/proc/{child}/stat").read_text():
        assert time.monotonic() < deadline, "the child outlived its supervisor"
        time.sleep(0.02)


@pytest.fixture
def stray() -> Iterator[subprocess.Popen[bytes]]:
    command = "trap '' TERM; echo up; while true; do sleep 0.1; done"
    environ = {"ATELIER_SERVER": "/some/place", "PATH": os.environ["PATH"]}
    with subprocess.Popen(["sh", "-c", command], env=environ, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        yield process
        process.kill()


def test_marked_processes_are_found_and_ended(stray: subprocess.Popen[bytes]) -> None:
    def find() -> list[int]:
        return processes.marked(b"ATELIER_SERVER=/some/place".__eq__)

    assert stray.pid in find()
    assert processes.marked(b"ATELIER_SERVER=/some/place2".__eq__) == []
    processes.end(find, patience_s=0.3)
    assert stray.wait(timeout=5) == -signal.SIGKILL
    assert find() == []


def test_a_process_is_told_from_a_later_one_of_the_same_id(stray: subprocess.Popen[bytes]) -> None:
    assert processes.started_at(stray.pid) == processes.started_at(stray.pid) != ""
    assert processes.started_at(os.getpid()) != processes.started_at(stray.pid)
    assert processes.started_at(2**22 + 1) == ""


def test_the_holder_of_a_port_is_named() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        assert processes.port_holder(server.getsockname()[1]).startswith(f"process {os.getpid()} (")


def test_a_full_disk_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(OSError) as full, open("/dev/full", "w", buffering=1) as device:
        device.write("x" * 10_000 + "\n")
    assert full.value.errno == errno.ENOSPC

    told = explain(full.value, tmp_path)
    assert told == f"The disk of {tmp_path} is full: free some space, or choose another disk with ATELIER_HOME=."


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EROFS, "it lies on a read-only disk"),
        (errno.EACCES, "permission denied"),
        (errno.ELOOP, "Too many levels"),
    ],
)
def test_other_refusals_of_a_disk_name_the_place(tmp_path: Path, number: int, words: str) -> None:
    told = explain(OSError(number, os.strerror(number), "/a/place"), tmp_path)

    assert told.startswith("/a/place can't be ")
    assert words in told
