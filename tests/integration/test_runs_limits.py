"""Limits of a run, each met by a real process: memory and cores by control group and by watching, the disk, the log."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from atelier.records import REASON_TEXT, Reason, Run
from tests.cli_driver import notebook, wait_for
from tests.service_driver import SETTINGS, Service, command_of, lives, of_control_groups, pids, service_over, write

LIMITS = "limits: {disk_size: 30Mi, log_size: 100Ki, artifact_size: 100Ki, control_groups: %s}\n"
SHM = Path("/dev/shm") / f"atelier-{uuid.uuid4().hex}"
MEMORY = 256 << 20

HOG = """\
import time
kept = []
while True:
    kept.append(bytearray(4 << 20))
    time.sleep(0.01)
"""
IN_CHILD = f"""\
import os, time
if os.fork():
    os.wait()
    time.sleep(30)
    print("it goes on")
{HOG}"""
IN_FILES = f"""\
import time
with open({str(SHM)!r}, "wb") as file:
    while True:
        file.write(bytes(4 << 20))
        file.flush()
        time.sleep(0.01)
"""
KILLED = "import os\nkept = bytearray(100 << 20)\nos.kill(os.getpid(), 9)"
BESIDE = "import pathlib, time\nkept = bytearray(150 << 20)\nprint('begun')\nwhile not pathlib.Path(GATE).exists():\n"
BESIDE += "    time.sleep(0.02)"
MUCH = """
    import pathlib, time
    pathlib.Path("small.bin").write_bytes(bytes(4 << 20))
    for part in range(20):
        with open("large.bin", "ab") as file:
            file.write(bytes(4 << 20))
        time.sleep(0.1)
    time.sleep(60)
"""


@dataclass(frozen=True)
class Held:
    """A service, and the runs that meet their limits in it, all begun at once."""

    service: Service
    runs: dict[str, str]
    gate: Path

    def end(self, name: str) -> Run:
        return self.service.wait(self.runs[name])


@pytest.fixture(scope="module", params=["true", "false"], ids=["by control group", "by watching"])
def held(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    folder = tmp_path_factory.mktemp("held")
    works = {"memory": HOG, "memory of a child": IN_CHILD, "files in memory": IN_FILES, "killed": KILLED, "disk": MUCH}
    works["beside"] = BESIDE.replace("GATE", repr(str(folder / "gate")))
    try:
        with service_over(settings=SETTINGS + LIMITS % request.param) as service:
            runs = {"beside": service.submit(write(folder / "beside", train__py=works.pop("beside")))}
            service.wait_log(runs["beside"], "begun")
            cells = notebook("ready = 1", HOG)
            runs |= {name: service.submit(write(folder / name, train__py=code)) for name, code in works.items()}
            runs["memory in a cell"] = service.submit(write(folder / "cell", train__ipynb=cells))
            yield Held(service, runs, folder / "gate")
    finally:
        SHM.unlink(missing_ok=True)


def assert_ended_by(run: Run, reason: Reason) -> None:
    assert (run.state, run.reason) == ("failed", reason), run
    assert run.hint == REASON_TEXT[reason][1]
    assert run.attempts[0].reason is reason


@pytest.mark.parametrize("name", ["memory", "memory of a child", "files in memory", "memory in a cell"])
def test_a_run_that_uses_too_much_memory_ends_and_says_so(held: Held, name: str) -> None:
    run = held.end(name)
    assert_ended_by(run, Reason.OUT_OF_MEMORY)
    assert "256 MiB" in run.message, run.message
    assert "its machine has" in run.message
    assert run.message.endswith("It was in cell 2.") == (name == "memory in a cell")
    assert "it goes on" not in held.service.log(run.id)


def test_a_kill_by_a_user_is_no_lack_of_memory(held: Held) -> None:
    run = held.end("killed")
    assert_ended_by(run, Reason.KILLED)
    assert "signal 9" in run.message


def test_a_run_that_fills_its_share_of_the_disk_ends_and_names_its_largest_files(held: Held) -> None:
    run = held.end("disk")
    assert_ended_by(run, Reason.DISK_QUOTA)
    assert "may have 30 MiB. Its largest files: large.bin (" in run.message, run.message
    assert "small.bin (4 MiB)" in run.message
    too_large = [warning for warning in run.warnings if "large.bin" in warning]
    assert too_large, run.warnings
    assert "MiB; a run may leave 100 KiB." in too_large[0]


def test_a_run_beside_them_is_untouched(held: Held) -> None:
    for name in held.runs.keys() - {"beside"}:
        held.end(name)
    held.gate.touch()
    assert held.end("beside").state == "succeeded"
    wait_for(lambda: not of_control_groups(held.runs.values()), "the runs' control groups to be removed")


STRAY = f"""
    import os, sys, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 3)
            os.execve(sys.executable, [sys.executable, "-c", "import time; time.sleep(60)", {SHM.name!r}], {{}})
        os._exit(0)
    os.wait()
    print("begun", flush=True)
    time.sleep(60)
"""


def test_what_outlives_agent_and_service_is_found_in_its_group(tmp_path: Path) -> None:
    """Without a mark, a parent and a session of the run: only its group knows it."""

    def strays() -> list[int]:
        return [pid for pid in pids() if SHM.name.encode() in command_of(pid).split(b"\0") and lives(pid)]

    with service_over() as service:
        run_id = service.submit(write(tmp_path, train__py=STRAY))
        service.wait_log(run_id, "begun")
        if not of_control_groups([run_id]):
            service.client.cancel(run_id, now=True)
            pytest.skip("no control group may be made here")
        assert len(strays()) == 1
        service.kill()
        for pid in service.agents(run_id):
            os.kill(pid, signal.SIGKILL)
        service.start()
        assert service.wait(run_id).reason is Reason.AGENT_LOST
        wait_for(lambda: not strays(), "the stray process to end")
        wait_for(lambda: not of_control_groups([run_id]), "the run's control group to be removed")


# -- cores --------------------------------------------------------------------------------------------------------
BURN = """
    import os, pathlib
    os.fork()
    while not pathlib.Path(GATE).exists():
        pass
"""


def test_a_run_has_no_more_cores_than_its_machine(service: Service, tmp_path: Path) -> None:
    run_id = service.submit(write(tmp_path, train__py=BURN.replace("GATE", repr(str(tmp_path / "gate")))))
    service.wait(run_id, "running")
    wait_for(lambda: service.of_attempt(run_id), "the work to begin")
    folders = [path for path in of_control_groups([run_id]) if (path / "cpu.stat").exists()]
    if not folders:
        pytest.skip("this computer's control groups have no quota of cores that may be set")
    (folder,) = folders
    for name in ("cpu.shares", "cpu.weight"):  # others that are busy would leave it less than its quota
        if (folder / name).exists():
            (folder / name).write_text("10000")

    def is_held() -> bool:
        told = dict(line.split() for line in (folder / "cpu.stat").read_text().splitlines())
        return int(told["nr_throttled"]) > 0

    wait_for(is_held, "the kernel to hold two busy processes to one core")
    (tmp_path / "gate").touch()
    assert service.wait(run_id).state == "succeeded"


# -- the log ------------------------------------------------------------------------------------------------------
TALK = """
    import time
    for n in range(60_000):
        print(f"line {n}")
    time.sleep(60)
"""


def test_what_a_log_would_show_at_its_end_outlives_the_agent(held: Held, tmp_path: Path) -> None:
    service = held.service
    run_id = service.submit(write(tmp_path, train__py=TALK))
    wait_for(lambda: any("half of what is kept" in each for each in service.run(run_id).warnings), "a warning")
    assert service.run(run_id).state == "running"
    tail = service.attempt_folder(run_id) / "log-tail"
    wait_for(lambda: _ends_with(tail, b"line 59999\n"), "the last line to be kept")
    for pid in service.agents(run_id):
        os.kill(pid, signal.SIGKILL)
    run = service.wait(run_id)
    assert run.reason is Reason.AGENT_LOST
    head, tail_text = service.log(run_id).split("\n[", 1)
    assert head.startswith("line 0\nline 1\n")
    assert len(head) == 50 << 10
    assert tail_text.endswith("\nline 59998\nline 59999\n")
    size = sum(len(f"line {n}\n") for n in range(60_000))
    assert tail_text.startswith(
        f"{size - (100 << 10)} bytes were left out here: this log reached its limit of 102400]\n"
    )
    assert run.attempts[0].log_size_bytes == len(head) + 2 + len(tail_text)
    wait_for(lambda: not of_control_groups([run_id]), "the run's control group to be removed")


def test_an_end_that_can_not_be_appended_does_not_stop_the_delivery(held: Held, tmp_path: Path) -> None:
    service = held.service
    run_id = service.submit(write(tmp_path, train__py=TALK))
    tail = service.attempt_folder(run_id) / "log-tail"
    wait_for(lambda: _ends_with(tail, b"line 59999\n"), "the last line to be kept")
    (tail / "0x").touch()
    for pid in service.agents(run_id):
        os.kill(pid, signal.SIGKILL)
    run = service.wait(run_id)
    assert run.reason is Reason.AGENT_LOST
    assert any("The end of the log, which its dead agent had kept, can't be" in words for words in run.warnings)
    assert len(service.log(run_id)) == 50 << 10


def _ends_with(folder: Path, text: bytes) -> bool:
    parts = sorted(folder.glob("[0-9]*"))
    return bool(parts) and parts[-1].read_bytes().endswith(text)
