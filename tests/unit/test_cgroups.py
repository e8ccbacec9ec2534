"""Control groups of both versions: made with their limits, entered before any code runs, counted, found and removed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from atelier.agent.launching import Launcher
from atelier.agent.memory import GroupMemory
from atelier.local.cgroups import (
    LEAF,
    ControlGroup,
    delegate,
    group_name,
    make_group,
    may_hold,
    noted_group,
    oom_kills,
    own_paths,
    sweep,
)
from tests.cli_driver import wait_for

MIB, NOBODY = 1 << 20, 65534
HOME = Path(tempfile.gettempdir()) / f"atl-{os.getpid()}"
ATTEMPTS = HOME / "run/attempts"
NAME = group_name(ATTEMPTS / "r-unittests2/1")

# -- where the kernel counts --------------------------------------------------------------------------------------
OWN = "user.slice/run.scope"
WHERE = {
    "v2, on a machine": (f"0::/{OWN}\n", f"sys/fs/cgroup/{OWN}/memory.events"),
    "v2, in a container": ("0::/\n", "sys/fs/cgroup/memory.events"),
    "v2, the container's own view": (f"0::/{OWN}\n", "sys/fs/cgroup/memory.events"),
    "v1, on a machine": (f"4:cpu:/x\n3:memory:/{OWN}\n0::/\n", f"sys/fs/cgroup/memory/{OWN}/memory.oom_control"),
    "v1, in a container": (f"3:memory:/{OWN}\n", "sys/fs/cgroup/memory/memory.oom_control"),
}


def lay(root: Path, **files: str) -> Path:
    """A tree of files as the kernel shows it, ``__`` for a slash; it stands in for groups that can't be made here."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize("name", WHERE)
def test_kills_for_memory_are_counted_where_the_process_is(tmp_path: Path, name: str) -> None:
    told, counter = WHERE[name]
    lay(tmp_path, proc__self__cgroup=told)
    (tmp_path / counter).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / counter).write_text("low 0\noom_kill_disable 0\noom 7\noom_kill 3\n")
    assert oom_kills(tmp_path) == 3


def test_where_the_kernel_does_not_say_none_are_counted(tmp_path: Path) -> None:
    assert oom_kills(tmp_path) == 0
    assert oom_kills() >= 0


# -- control groups -----------------------------------------------------------------------------------------------
class KernelTree:
    """A folder that a kernel fills: each group made below it has its files."""

    def __init__(self, root: Path, own: str, controllers: str) -> None:
        lay(root, proc__self__cgroup=f"0::/{own}\n")
        self.root, self.tree = root, root / "sys/fs/cgroup"
        lay(self.tree / own, **{"cgroup.controllers": controllers, "cgroup.procs": ""})
        lay(self.tree / own, **{"cgroup.subtree_control": controllers})

    def filled(self, folder: Path) -> Path:
        return lay(folder, **dict.fromkeys(("memory.swap.max", "memory.oom.group", "cpu.max"), ""))


@pytest.mark.parametrize("own", ["app.slice/atelier.scope", ""], ids=["delegated", "a container"])
def test_a_group_of_version_2_has_its_limits_and_dies_as_one(tmp_path: Path, own: str) -> None:
    kernel = KernelTree(tmp_path, own, "cpu memory pids")
    folder = kernel.filled(kernel.tree / own / NAME)
    assert may_hold(tmp_path)
    group = make_group(NAME, memory_bytes=7 * MIB, cpu=2.5, root=tmp_path)
    assert group == ControlGroup(folder, folder)
    told = {name: (folder / name).read_text() for name in ("memory.max", "memory.swap.max", "memory.oom.group")}
    assert told == {"memory.max": str(7 * MIB), "memory.swap.max": "0", "memory.oom.group": "1"}
    assert (folder / "cpu.max").read_text() == "250000 100000"
    assert group.entries == [folder / "cgroup.procs"]
    lay(folder, **{"memory.events": "max 4\noom 2\noom_kill 2\n", "memory.peak": f"{7 * MIB}\n"})
    assert (group.oom_kills(), group.peak_bytes()) == (2, 7 * MIB)


def test_an_agent_in_the_leaf_of_a_divided_group_makes_groups_beside_it(tmp_path: Path) -> None:
    kernel = KernelTree(tmp_path, "app.slice", "memory")
    lay(tmp_path, proc__self__cgroup=f"0::/app.slice/{LEAF}\n")
    (kernel.tree / "app.slice" / LEAF).mkdir()
    group = make_group(NAME, memory_bytes=MIB, cpu=1, root=tmp_path)
    assert group == ControlGroup(kernel.tree / "app.slice" / NAME, None), "without the controller there is no quota"


@pytest.mark.parametrize("controllers", ["", "cpu pids"])
def test_without_a_controller_of_memory_there_is_no_group(tmp_path: Path, controllers: str) -> None:
    kernel = KernelTree(tmp_path, "app.slice", controllers)
    assert not may_hold(tmp_path)
    assert make_group(NAME, memory_bytes=MIB, cpu=1, root=tmp_path) is None
    assert not (kernel.tree / "app.slice" / NAME).exists()
    assert make_group(NAME, memory_bytes=MIB, cpu=1, root=tmp_path / "nothing") is None


@pytest.fixture
def unified() -> Iterator[Path]:
    """A real group of version 2, with a process in it."""
    folder = next((path for path in map(Path, ("/sys/fs/cgroup/unified", "/sys/fs/cgroup")) if _is_v2(path)), None)
    if folder is None or not os.access(folder, os.W_OK):
        pytest.skip("making a control group needs root")
    group = folder / NAME
    group.mkdir()
    sleeper = subprocess.Popen(["sleep", "60"])
    (group / "cgroup.procs").write_text(str(sleeper.pid))
    try:
        yield group
    finally:
        sleeper.kill()
        sleeper.wait(timeout=10)
        ControlGroup(group).remove()
        assert not group.exists()


def _is_v2(folder: Path) -> bool:
    return (folder / "cgroup.controllers").exists() and bool((folder / "cgroup.controllers").read_text().split())


def test_a_group_is_divided_only_where_it_was_given_for_that(unified: Path) -> None:
    controller = (unified.parent / "cgroup.controllers").read_text().split()[0]
    with contextlib.suppress(OSError):
        (unified.parent / "cgroup.subtree_control").write_text(f"+{controller}")
    sleeper = (unified / "cgroup.procs").read_text()
    assert not delegate(unified, [controller]), "it has processes, and nobody gave it to us"
    assert (unified / "cgroup.procs").read_text() == sleeper
    os.setxattr(unified, "trusted.delegate", b"1")
    assert delegate(unified, [controller])
    assert (unified / "cgroup.subtree_control").read_text().split() == [controller]
    assert (unified / LEAF / "cgroup.procs").read_text() == sleeper
    assert delegate(unified, [controller]), "a second time it is done already"


@pytest.fixture
def group() -> Iterator[ControlGroup]:
    """A real group with little memory."""
    made = make_group(NAME, memory_bytes=64 * MIB, cpu=0.02)
    if made is None or made.memory is None:
        pytest.skip("making a control group needs root, or one that is delegated")
    try:
        yield made
    finally:
        made.remove()
        assert not any(folder.exists() for folder in made.folders)


def run_in(group: ControlGroup | None, folder: Path, code: str, output: int | None = None) -> subprocess.Popen[bytes]:
    argv = Launcher(folder / "not-begun", group).argv([sys.executable, "-c", code])
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output)


def test_an_account_that_owns_nothing_makes_none(tmp_path: Path) -> None:
    if os.getuid():
        pytest.skip("becoming another account needs root")
    child = os.fork()
    if child == 0:
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        os._exit(0 if make_group(NAME, memory_bytes=MIB, cpu=1) is None and not may_hold() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_where_a_group_was_made_it_may_be(group: ControlGroup) -> None:
    assert may_hold()


def test_the_kernel_ends_what_needs_too_much_and_says_so(group: ControlGroup, tmp_path: Path) -> None:
    memory = GroupMemory(group, 64 * MIB)
    assert memory.breach() is None
    process = run_in(group, tmp_path, "x = bytearray(100 << 20)")
    assert process.wait(timeout=20) == -9
    assert memory.breach() == "The run used all the memory that its machine has, 64 MiB, and needed more."
    assert GroupMemory(group, 64 * MIB).breach() is None, "what was before it is not its matter"


def test_files_in_memory_count(group: ControlGroup, tmp_path: Path) -> None:
    path = Path("/dev/shm") / NAME
    try:
        process = run_in(group, tmp_path, f"open({str(path)!r}, 'wb').write(bytes(30 << 20) * 3)")
        assert process.wait(timeout=20) == -9
    finally:
        path.unlink(missing_ok=True)
    assert GroupMemory(group, 64 * MIB).breach() is None
    assert group.oom_kills() == 1


def test_a_process_in_a_group_is_found_whatever_it_did_to_get_away(group: ControlGroup, tmp_path: Path) -> None:
    code = "import os\nif os.fork() == 0:\n os.setsid()\n os.execve('/bin/sleep', ['sleep', '60'], {})"
    assert run_in(group, tmp_path, code).wait(timeout=20) == 0
    (stray,) = group.members()
    os.kill(stray, 9)
    wait_for(lambda: not group.members(), "the stray process to end")


def test_less_than_a_core_is_a_core(group: ControlGroup) -> None:
    if group.cpu is None:
        pytest.skip("this computer's control groups have no quota of cores")
    assert int((group.cpu / "cpu.cfs_quota_us").read_text()) == int((group.cpu / "cpu.cfs_period_us").read_text())


def test_what_a_dead_agent_has_noted_is_found_again_and_nothing_else(group: ControlGroup, tmp_path: Path) -> None:
    note = tmp_path / "group.json"
    group.note(note)
    found = noted_group(note, NAME)
    assert found is not None
    assert set(found.folders) == set(group.folders)
    for text in ("", "[]", "{}", '["/etc"]', f'["/tmp/{NAME}"]', f'["/sys/fs/cgroup/../../tmp/{NAME}"]', "[1, 2]"):
        note.write_text(text)
        assert noted_group(note, NAME) is None, text
    assert noted_group(tmp_path / "nothing", NAME) is None


def test_empty_groups_that_nobody_keeps_are_swept(group: ControlGroup, tmp_path: Path) -> None:
    """Not a new one, not a kept one, not one with a process, which another home's run may have."""
    sweep(ATTEMPTS, lambda name: name != NAME)
    assert all(folder.exists() for folder in group.folders), "it is new"
    for folder in group.folders:
        os.utime(folder, (0, 0))
    sweep(ATTEMPTS, lambda name: True)
    assert all(folder.exists() for folder in group.folders), "it is kept"
    process = run_in(group, tmp_path, "import time; time.sleep(60)")
    wait_for(lambda: process.pid in group.members(), "the process to be in the group")
    sweep(ATTEMPTS, lambda name: name != NAME)
    assert all(folder.exists() for folder in group.folders), "it is in use"
    process.kill()
    process.wait(timeout=10)
    wait_for(lambda: not group.members(), "the group to be empty")
    sweep(ATTEMPTS, lambda name: name != NAME)
    assert not any(folder.exists() for folder in group.folders)


def test_groups_of_another_home_are_left_to_that(group: ControlGroup, tmp_path: Path) -> None:
    """Two homes on one computer removed one another's, also of a run that was about to begin again."""
    for folder in group.folders:
        os.utime(folder, (0, 0))
    sweep(tmp_path / "run/attempts", lambda name: False)
    assert all(folder.exists() for folder in group.folders)
    sweep(ATTEMPTS, lambda name: False)
    assert not any(folder.exists() for folder in group.folders)


def test_a_home_has_one_name_by_all_its_paths(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "home")
    names = {group_name(tmp_path / home / "run/attempts/r-a/1") for home in ("home", "link")}
    assert len(names) == 1
    assert names != {group_name(tmp_path / "other/run/attempts/r-a/1")}


def test_a_command_that_is_none_is_told(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path / "not-begun")
    assert launcher.problem() is None
    subprocess.run(launcher.argv(["/nowhere/python"]), check=False, timeout=20)
    assert launcher.problem() == "/nowhere/python can't be used: No such file or directory."
    gone = Launcher(tmp_path / "no-group", ControlGroup(tmp_path / "gone"))
    assert subprocess.run(gone.argv([sys.executable, "-c", ""]), check=False, timeout=20).returncode == 127
    assert gone.problem() == f"{tmp_path}/gone/cgroup.procs can't be used: No such file or directory."


def test_the_kernel_takes_a_work_before_the_platform(tmp_path: Path) -> None:
    process = run_in(None, tmp_path, "print(open('/proc/self/oom_score_adj').read())", subprocess.PIPE)
    assert process.communicate(timeout=20)[0].split() == [b"500"]


def test_this_process_is_somewhere() -> None:
    assert own_paths()


def test_a_group_whose_memory_can_not_be_limited_is_not_made(tmp_path: Path) -> None:
    """As where the controllers' folders are there, but belong to somebody else."""
    lay(tmp_path, proc__self__cgroup="4:memory:/own\n3:cpu:/\n")
    for hierarchy in ("memory/own", "cpu"):
        folder = tmp_path / "sys/fs/cgroup" / hierarchy / NAME
        (folder / "memory.limit_in_bytes").mkdir(parents=True)
        (folder / "cpu.cfs_period_us").mkdir()
    assert make_group(NAME, memory_bytes=MIB, cpu=1, root=tmp_path) is None
