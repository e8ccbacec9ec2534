"""A control group of one attempt's work: the kernel holds it to its memory and its cores, and knows all its processes.

Both versions of control groups are used, where this process may make one below its own: version 1 anywhere, version 2
only where controllers are delegated, for there no group may have both processes and groups below it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from atelier.local.plain import read_small

TREE = Path("/sys/fs/cgroup")
LEAF = "atelier-platform"
"""Where the processes of a delegated group go, so that groups with limits can lie beside them."""

NOTE = "group.json"
"""Where an attempt's group is noted, in the attempt's folder."""

MOST_NOTE_BYTES = 64 << 10
NEW_S = 60.0
PERIOD_US = 100_000
REMOVE_PATIENCE_S = 2.0
MOVES = 5
_DELEGATED = ("user.delegate", "trusted.delegate")
_V2 = ("memory", "cpu")


@dataclass(frozen=True)
class ControlGroup:
    """A group of processes with limits. ``memory`` and ``cpu`` are its folders, None where it doesn't limit that."""

    memory: Path | None = None
    cpu: Path | None = None

    @property
    def folders(self) -> list[Path]:
        """Its folder in each hierarchy."""
        return list(dict.fromkeys(folder for folder in (self.memory, self.cpu) if folder is not None))

    @property
    def entries(self) -> list[Path]:
        """Files that a process writes itself into, to be in it."""
        return [folder / "cgroup.procs" for folder in self.folders]

    def members(self) -> set[int]:
        """Ids of its processes, those in groups that the work has made below it included."""
        lists = [path for folder in self.folders for path in folder.glob("**/cgroup.procs")]
        return {int(pid) for path in lists for pid in _read(path).split()}

    def oom_kills(self) -> int:
        """How many of its processes the kernel has ended for memory."""
        return oom_kills_in(self.memory / "memory.events", self.memory / "memory.oom_control") if self.memory else 0

    def peak_bytes(self) -> int | None:
        """The most memory that it had at once; None where the kernel doesn't say."""
        if self.memory is None:
            return None
        told = _read(self.memory / "memory.peak") or _read(self.memory / "memory.max_usage_in_bytes")
        return int(told) if told.strip().isdecimal() else None

    def remove(self) -> None:
        """Remove it, when its processes are gone; one that hangs in the kernel is not waited for long."""
        deadline = time.monotonic() + REMOVE_PATIENCE_S
        while [folder for folder in self.folders if not _removed(folder)] and time.monotonic() < deadline:
            time.sleep(0.02)

    def note(self, path: Path) -> None:
        """Note where it is, for an agent that takes over."""
        path.write_text(json.dumps([str(folder) for folder in self.folders]))


def group_name(folder: Path) -> str:
    """How the group of an attempt with this folder is called; no other one has this name, nor one of another home."""
    home = hashlib.sha256(os.fsencode(folder.parent.parent.resolve())).hexdigest()[:8]
    return f"atelier-{home}-{folder.parent.name}-{folder.name}"


def noted_group(path: Path, name: str) -> ControlGroup | None:
    """The group that a dead agent has noted, to be emptied and removed; a note of anything else counts as none."""
    try:
        told = [Path(str(folder)) for folder in json.loads(read_small(path, MOST_NOTE_BYTES))]
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    if not 1 <= len(told) <= 2 or any(folder.name != name or not _is_group(folder) for folder in told):
        return None
    return ControlGroup(told[0], told[-1])


def make_group(name: str, *, memory_bytes: int, cpu: float, root: Path = Path("/")) -> ControlGroup | None:
    """A new group below this process's own; None where none can be made, and so nothing is limited.

    Parameters
    ----------
    name : str
        The folder's name, which no other attempt has.
    memory_bytes : int
        Memory of all its processes together: pages of files in memory (``/dev/shm``) count, swap gives no more.
    cpu : float
        Cores that they may use together, and what they weigh where others are busy, too; less than one counts as one,
        for a part of one only makes everything late.
    root : Path
        Where ``proc`` and ``sys`` lie.
    """
    paths, tree = own_paths(root), root / TREE.relative_to("/")
    if (parent := _delegated(paths.get("", ""), tree)) is not None:
        folder = _limited(parent / name, _v2_limits(parent, memory_bytes, cpu))
        has_cpu = folder is not None and (folder / "cpu.max").exists()
        return ControlGroup(folder, folder if has_cpu else None) if folder else None
    memory = _first_version(tree / "memory", paths.get("memory"), name, _v1_memory(memory_bytes))
    cores = _first_version(tree / "cpu", paths.get("cpu"), name, _v1_cpu(cpu))
    return ControlGroup(memory, cores) if memory or cores else None


def sweep(attempts: Path, is_kept: Callable[[str], bool], root: Path = Path("/")) -> None:
    """Remove empty groups that nobody keeps: their agents and their service died for good.

    ``attempts`` is the folder of all attempts of a home: groups of another home's are left to that. ``is_kept`` is
    asked with a group's name. One that is new is left to whoever is about to enter it.
    """
    for place in _places(root):
        for folder in place.glob(group_name(attempts / "r-*" / "*")):
            status = _status(folder)
            if status is None or time.time() - status.st_mtime < NEW_S or is_kept(folder.name):
                continue
            if not ControlGroup(folder).members():
                _removed(folder)


def _places(root: Path) -> list[Path]:
    """Where the groups of this process's agents lie."""
    paths, tree = own_paths(root), root / TREE.relative_to("/")
    own = tree / paths.get("", "")
    found = [own.parent if own.name == LEAF else own]
    for hierarchy in ("memory", "cpu"):
        place = tree / hierarchy / paths.get(hierarchy, "")
        found.append(place if place.is_dir() else tree / hierarchy)
    return found


def _status(folder: Path) -> os.stat_result | None:
    try:
        return folder.stat()
    except OSError:
        return None


def may_hold(root: Path = Path("/")) -> bool:
    """Whether work can be held to its memory by a group here; nothing is made or moved for the answer."""
    paths, tree = own_paths(root), root / TREE.relative_to("/")
    parent, offered = _offered(paths.get("", ""), tree)
    if "memory" in offered:
        is_given = "memory" in _read(parent / "cgroup.subtree_control").split() or _is_ours(parent)
        return is_given and os.access(parent, os.W_OK)
    place = tree / "memory" / paths.get("memory", "")
    return "memory" in paths and os.access(place if place.is_dir() else tree / "memory", os.W_OK)


def own_paths(root: Path = Path("/")) -> dict[str, str]:
    """This process's place in each hierarchy: controller → path without a slash before it; version 2 is ``""``."""
    found: dict[str, str] = {}
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        found |= dict.fromkeys(controllers.split(","), path.lstrip("/"))
    return found


def oom_kills(root: Path = Path("/")) -> int:
    """How many processes the kernel has ended for memory in this process's own cgroup; 0 where it doesn't say."""
    return oom_kills_in(*_own_counters(root))


def oom_kills_in(*counters: Path) -> int:
    """The count in the first of these files that has one."""
    for path in counters:
        for line in _read(path).splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def _own_counters(root: Path) -> Iterator[Path]:
    """Where the kernel counts: cgroup v2 and v1, at this process's place in the tree, or at its top in a container."""
    paths, tree = own_paths(root), root / TREE.relative_to("/")
    for place in dict.fromkeys((paths.get("", ""), "")):
        yield tree / place / "memory.events"
    for place in dict.fromkeys((paths.get("memory", ""), "")):
        yield tree / "memory" / place / "memory.oom_control"


# -- version 1 ----------------------------------------------------------------------------------------------------
def _v1_memory(memory_bytes: int) -> list[tuple[str, str]]:
    return [("memory.limit_in_bytes", str(memory_bytes)), ("memory.memsw.limit_in_bytes", str(memory_bytes))]


def _v1_cpu(cpu: float) -> list[tuple[str, str]]:
    quota = [("cpu.cfs_period_us", str(PERIOD_US)), ("cpu.cfs_quota_us", str(_quota_us(cpu)))]
    return [*quota, ("cpu.shares", str(int(1024 * max(1.0, cpu))))]


def _first_version(hierarchy: Path, own: str | None, name: str, limits: Sequence[tuple[str, str]]) -> Path | None:
    if own is None:
        return None
    place = hierarchy / own
    return _limited((place if place.is_dir() else hierarchy) / name, limits)


# -- version 2 ----------------------------------------------------------------------------------------------------
def _v2_limits(parent: Path, memory_bytes: int, cpu: float) -> list[tuple[str, str]]:
    limits = [("memory.max", str(memory_bytes)), ("memory.swap.max", "0"), ("memory.oom.group", "1")]
    has_cpu = "cpu" in _read(parent / "cgroup.subtree_control").split()
    if not has_cpu:
        return limits
    weight = min(10_000, int(100 * max(1.0, cpu)))
    return [*limits, ("cpu.max", f"{_quota_us(cpu)} {PERIOD_US}"), ("cpu.weight", str(weight))]


def _delegated(own: str, tree: Path) -> Path | None:
    """The group below which one with a limit of memory can be made; None where there is no such one."""
    parent, offered = _offered(own, tree)
    if "memory" not in offered or not os.access(parent, os.W_OK):
        return None
    return parent if delegate(parent, [name for name in _V2 if name in offered]) else None


def _offered(own: str, tree: Path) -> tuple[Path, list[str]]:
    """The group below which ours would lie, and its controllers."""
    place = tree / own
    parent = place.parent if place.name == LEAF else place
    return parent, _read(parent / "cgroup.controllers").split()


def delegate(group: Path, controllers: Sequence[str]) -> bool:
    """Have controllers act below a group; its processes go to a leaf of it, if it was given to us to be divided."""
    for _ in range(MOVES):
        given = _read(group / "cgroup.subtree_control").split()
        try:
            missing = " ".join(f"+{name}" for name in controllers if name not in given)
            if missing:
                (group / "cgroup.subtree_control").write_text(missing)
            return True
        except OSError as problem:
            if problem.errno != errno.EBUSY or not _is_ours(group):
                return False
        _empty(group)
    return False


def _empty(group: Path) -> None:
    leaf = group / LEAF
    leaf.mkdir(exist_ok=True)
    for pid in _read(group / "cgroup.procs").split():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            (leaf / "cgroup.procs").write_text(pid)


def _is_ours(group: Path) -> bool:
    """Whether systemd has marked a group as delegated to whoever runs in it."""
    for mark in _DELEGATED:
        with contextlib.suppress(OSError):
            if os.getxattr(group, mark) == b"1":
                return True
    return False


# -- both ---------------------------------------------------------------------------------------------------------
def _quota_us(cpu: float) -> int:
    return int(max(1.0, cpu) * PERIOD_US)


def _limited(folder: Path, limits: Sequence[tuple[str, str]]) -> Path | None:
    """A new group with these limits; None, and no group, where the first can't be set. Others may be missing here."""
    try:
        folder.mkdir(exist_ok=True)
        (first, value), *others = limits
        (folder / first).write_text(value)
        for name, each in others:
            if (folder / name).exists():
                (folder / name).write_text(each)
    except OSError as problem:
        print(f"{folder} can't hold the work: {problem}", flush=True)
        _removed(folder)
        return None
    return folder


def _removed(folder: Path) -> bool:
    """Remove a group and those below it; whether it is gone."""
    below = sorted((path for path in folder.glob("**/") if path != folder), key=lambda path: -len(path.parts))
    with contextlib.suppress(OSError):  # it has processes still, or is gone
        for each in (*below, folder):
            each.rmdir()
    return not folder.exists()


def _is_group(folder: Path) -> bool:
    return folder.is_relative_to(TREE) and ".." not in folder.parts


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
