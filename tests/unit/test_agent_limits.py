"""What holds a work to its memory and its share of the disk where no control group does: watching and counting."""

from __future__ import annotations

import contextlib
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from atelier.agent.disk import DiskShare
from atelier.agent.family import Family
from atelier.agent.limits import Limits
from atelier.agent.memory import MemoryLimit, WatchedMemory, sentence
from atelier.agent.place import Place
from atelier.agent.stopping import Stopper
from tests.cli_driver import wait_for

MIB = 1 << 20
NAME = f"atelier-r-unittests2-{os.getpid()}"


# -- watched memory -----------------------------------------------------------------------------------------------
def begun(code: str) -> subprocess.Popen[bytes]:
    """A process once it has printed a line."""
    process = subprocess.Popen([sys.executable, "-c", f"{code}\nimport time; print(); time.sleep(60)"], stdout=-1)
    assert process.stdout is not None
    process.stdout.readline()
    return process


@contextlib.contextmanager
def watched(code: str, limit_bytes: int) -> Iterator[WatchedMemory]:
    """Memory that a process with this code is held to, its children included."""
    with begun(code) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        try:
            yield WatchedMemory(lambda: [process.pid, *map(int, children.read_text().split())], limit_bytes)
        finally:
            for pid in (*children.read_text().split(), process.pid):
                os.kill(int(pid), 9)


def test_a_work_that_takes_too_much_is_seen(tmp_path: Path) -> None:
    with watched("x = bytearray(100 << 20)", 50 * MIB) as memory:
        words = memory.breach()
    assert words is not None
    assert words.endswith("of memory, and its machine has 50 MiB.")
    assert 100 <= float(words.split()[3]) < 120, words


def test_pages_that_processes_share_count_once() -> None:
    """Of its resident memory this one seems to have 5 times 60 MiB."""
    code = "import os\nx = bytearray(60 << 20)\nfor _ in range(4):\n if not os.fork():\n  import time; time.sleep(60)"
    with watched(code, 150 * MIB) as memory:
        assert memory.breach() is None
    with watched(code, 50 * MIB) as memory:
        assert "memory" in (memory.breach() or "")


def test_files_in_memory_that_a_work_has_or_had_open_are_its(tmp_path: Path) -> None:
    path, gate = Path("/dev/shm") / NAME, tmp_path / "gate"
    code = f"""
import os, time, pathlib
file = open({str(path)!r}, "wb"); file.write(bytes(80 << 20)); file.flush()
print(flush=True)
while not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.01)
file.close()
"""
    try:
        with watched(code, 200 * MIB) as memory:
            assert memory.breach() is None
            gate.touch()
            time.sleep(0.3)
            with path.open("r+b") as file:  # somebody else's, who only grows it
                file.truncate(300 * MIB)
                mmap.mmap(file.fileno(), 0)[: 250 * MIB] = bytes(250 * MIB)
            assert memory.breach() is not None, "it is the work's file, closed or not"
    finally:
        path.unlink(missing_ok=True)


def test_a_limit_that_was_met_exactly_is_told_as_one() -> None:
    assert sentence(2**30, 2**30) == "The run used all the memory that its machine has, 1 GiB, and needed more."
    assert sentence(3 * 2**29, 2**30) == "The run used 1.5 GiB of memory, and its machine has 1 GiB."


# -- the disk -----------------------------------------------------------------------------------------------------
def test_what_lies_on_the_disk_is_counted_in_blocks_and_once(tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "deep").mkdir(parents=True)
    (work / "deep/a.bin").write_bytes(bytes(MIB))
    os.link(work / "deep/a.bin", work / "again.bin")
    (work / "elsewhere").symlink_to("/usr")
    with (work / "sparse.bin").open("wb") as file:
        file.truncate(1 << 40)
    assert DiskShare(tmp_path, 2 * MIB).breach() is None
    (work / "b.bin").write_bytes(bytes(2 * MIB))
    (tmp_path / "run").mkdir()
    (tmp_path / "run/spool.jsonl").write_bytes(bytes(64 << 10))
    words = DiskShare(tmp_path, 2 * MIB).breach()
    assert words is not None
    assert words.replace("again.bin", "deep/a.bin") == (
        "The run has 3.1 MiB on the disk, and may have 2 MiB. "
        "Its largest files: b.bin (2 MiB), deep/a.bin (1 MiB), run/spool.jsonl (64 KiB)."
    )


def test_odd_names_and_what_is_gone_hinder_nobody(tmp_path: Path) -> None:
    share = DiskShare(tmp_path / "gone", 1)
    assert share.breach() is None
    (tmp_path / os.fsdecode(b"\xff\xfe.bin")).write_bytes(bytes(MIB))
    words = DiskShare(tmp_path, 1).breach()
    assert words is not None
    assert words.encode()


def test_counting_many_files_is_followed_by_a_long_pause(tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / str(number)).touch()
    share = DiskShare(tmp_path, MIB)
    assert share.breach() is None
    (tmp_path / "big").write_bytes(bytes(2 * MIB))
    began_s = time.thread_time()
    for _ in range(1000):
        assert share.breach() is None, "it is counted again too soon"
    assert time.thread_time() - began_s < 0.5, "it is counted again each time"
    wait_for(lambda: share.breach() is not None, "it to be counted again", timeout_s=20)


# -- all of them --------------------------------------------------------------------------------------------------
class Broken:
    """A `MemoryLimit` that can't be looked at."""

    def breach(self) -> str | None:
        raise PermissionError("nobody may look")


class Passed:
    """A `MemoryLimit` that the work has passed."""

    def breach(self) -> str | None:
        return "It was too much."


def ended_by(folder: Path, memory: MemoryLimit, *, left_s: float = 60.0, disk_bytes: int = MIB) -> Stopper:
    """The order that limits give, to a work that runs for a moment."""
    place = Place(folder)
    (folder / "run/spool").mkdir(parents=True)
    stopper = Stopper(place, Family("r-unittests2/1", folder))
    disk = DiskShare(folder, disk_bytes)
    Limits(left_s=left_s, whole_s=left_s, silent_s=60.0, signs=lambda: [0], memory=memory, disk=disk).enforce(stopper)
    wait_for(lambda: stopper.order, "an order to stop")
    stopper.done.set()
    return stopper


def test_a_limit_that_can_not_be_looked_at_leaves_the_others(tmp_path: Path) -> None:
    assert ended_by(tmp_path, Broken(), left_s=0.5).order == "deadline"


def test_what_happened_goes_with_the_order(tmp_path: Path) -> None:
    stopper = ended_by(tmp_path, Passed())
    assert (stopper.order, stopper.words) == ("memory", "It was too much.")


def test_the_disk_is_counted_beside_the_others(tmp_path: Path) -> None:
    (tmp_path / "big.bin").write_bytes(bytes(MIB))
    stopper = ended_by(tmp_path, Broken(), disk_bytes=1000)
    assert stopper.order == "disk_quota"
    assert "big.bin" in stopper.words
