"""All processes of an attempt: found by their mark, measured, and ended, whatever they did to get away."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import psutil

from atelier.local.attempts import processes_of
from atelier.local.cgroups import ControlGroup
from atelier.local.processes import end

ORPHAN_S = 30.0


class Family:
    """The descendants of this agent, and all else that bears the attempt's mark or is in its control group."""

    def __init__(self, key: str, folder: Path) -> None:
        self._key, self._folder = key, folder
        self._self = psutil.Process()
        self._known: dict[int, psutil.Process] = {}
        self._zombies: dict[int, float] = {}
        self._peak_bytes = 0
        self.group: ControlGroup | None = None
        """The work's control group, if it has one."""

    def members(self) -> list[psutil.Process]:
        """Living processes of the family, without the agent."""
        found = {child.pid: child for child in self._self.children(recursive=True)}
        self._known = {pid: self._known.get(pid, child) for pid, child in found.items()}
        return list(self._known.values())

    def usage(self) -> dict[str, float]:
        """CPU in percent of one core since the last call, memory in bytes and its peak, number of processes."""
        self._reap()
        cpu, memory, count = 0.0, 0, 0
        for member in self.members():
            try:
                cpu += member.cpu_percent()
                memory += member.memory_info().rss
                count += 1
            except psutil.NoSuchProcess:
                continue
        counted_bytes = self.group.peak_bytes() if self.group is not None else None
        self._peak_bytes = max(self._peak_bytes, memory, counted_bytes or 0)
        used = {"memory_bytes": float(memory), "memory_peak_bytes": float(self._peak_bytes)}
        return {"cpu_percent": round(cpu, 1), **used, "processes": float(count)}

    def end(self) -> None:
        """End every member at once; go on until none is left, or what is left hangs in the kernel."""
        end(self._living, patience_s=0.0)

    def close(self) -> None:
        """End every member, and remove the control group; nothing is told of it any more."""
        self.end()
        if self.group is not None:
            self.group.remove()

    def _living(self) -> set[int]:
        """Ids of members that are no zombies; those are left to whoever waits for them, and at the end to init.

        To reap them here would take the work's own exit status from `subprocess`, which then says 0.
        """
        own = {child.pid for child in self._self.children(recursive=True) if _lives(child)}
        grouped = self.group.members() if self.group is not None else set()
        return own | set(processes_of(self._key, self._folder)) | {pid for pid in grouped if _is_living(pid)}

    def _reap(self) -> None:
        """Take the exit status of adopted orphans that ended a while ago; who waits for his own is faster."""
        dead = {child.pid for child in self._self.children() if not _lives(child)}
        now = time.monotonic()
        self._zombies = {pid: self._zombies.get(pid, now) for pid in dead}
        for pid, since in self._zombies.items():
            if now - since > ORPHAN_S:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)


def _is_living(pid: int) -> bool:
    try:
        return _lives(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
