"""All processes of an attempt: found by their mark, measured, and ended, whatever they did to get away."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from atelier.local.processes import end, marked

MARK = "ATELIER_ATTEMPT_KEY"
ORPHAN_S = 30.0


class Family:
    """The descendants of this agent, and all else that bears the attempt's mark in its environment."""

    def __init__(self, key: str) -> None:
        self._mark = f"{MARK}={key}".encode()
        self._self = psutil.Process()
        self._known: dict[int, psutil.Process] = {}
        self._zombies: dict[int, float] = {}

    def members(self) -> list[psutil.Process]:
        """Living processes of the family, without the agent."""
        found = {child.pid: child for child in self._self.children(recursive=True)}
        self._known = {pid: self._known.get(pid, child) for pid, child in found.items()}
        return list(self._known.values())

    def usage(self) -> dict[str, float]:
        """CPU in percent of one core since the last call, resident memory in bytes, number of processes."""
        self._reap()
        cpu, memory, count = 0.0, 0, 0
        for member in self.members():
            try:
                cpu += member.cpu_percent()
                memory += member.memory_info().rss
                count += 1
            except psutil.NoSuchProcess:
                continue
        return {"cpu_percent": round(cpu, 1), "memory_bytes": float(memory), "processes": float(count)}

    def end(self) -> None:
        """End every member at once; go on until none is left, or what is left hangs in the kernel."""
        end(self._living, patience_s=0.0)

    def _living(self) -> set[int]:
        """Ids of members that are no zombies; those are left to whoever waits for them, and at the end to init.

        To reap them here would take the work's own exit status from `subprocess`, which then says 0.
        """
        own = {child.pid for child in self._self.children(recursive=True) if _lives(child)}
        return own | set(marked(self._mark.__eq__))

    def _reap(self) -> None:
        """Take the exit status of adopted orphans that ended a while ago; who waits for his own is faster."""
        dead = {child.pid for child in self._self.children() if not _lives(child)}
        now = time.monotonic()
        self._zombies = {pid: self._zombies.get(pid, now) for pid in dead}
        for pid, since in self._zombies.items():
            if now - since > ORPHAN_S:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def oom_kills(root: Path = Path("/")) -> int:
    """How many processes the kernel has ended for memory in this process's own cgroup; 0 where it doesn't say."""
    for path in _memory_counters(root):
        with contextlib.suppress(OSError):
            for line in path.read_text().splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
    return 0


def _memory_counters(root: Path) -> Iterator[Path]:
    """Where the kernel counts: cgroup v2 and v1, at this process's place in the tree, or at its top in a container."""
    groups = {"": "", "memory": ""}
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            groups |= {name: path.lstrip("/") for name in controllers.split(",") if name in groups}
    tree = root / "sys/fs/cgroup"
    for place in dict.fromkeys((groups[""], "")):
        yield tree / place / "memory.events"
    for place in dict.fromkeys((groups["memory"], "")):
        yield tree / "memory" / place / "memory.oom_control"
