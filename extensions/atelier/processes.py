"""Processes found by a mark in their environment, and ended: what a user server or its kernels started, however nested.

A process that cleared its environment is not found.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

POLL_S = 0.05
KILL_PATIENCE_S = 5.0


def marked(is_mark: Callable[[bytes], bool]) -> list[int]:
    """Ids of this account's processes with an environment entry (``b"NAME=value"``) that fits; never this one."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            environment = _environment(int(entry.name))
            if any(is_mark(each) for each in environment):
                found.append(int(entry.name))
    return found


def end(find: Callable[[], Iterable[int]], *, patience_s: float) -> None:
    """Send SIGTERM to all that ``find`` finds, and SIGKILL to what is left after ``patience_s``; new ones are seen too.

    Returns at the latest 5 s after that: a process that hangs in the kernel can't be waited for.
    """
    deadline = time.monotonic() + patience_s
    _signal(find(), signal.SIGTERM)
    while left := list(find()):
        if time.monotonic() > deadline + KILL_PATIENCE_S:
            return
        if time.monotonic() > deadline:
            _signal(left, signal.SIGKILL)
        time.sleep(POLL_S)


def started_at(pid: int) -> str:
    """What tells a process from a later one with the same id (boot and start time); empty when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
    return f"{boot}:{stat.rpartition(')')[2].split()[19]}"


def port_holder(port: int) -> str:
    """Who listens on a TCP port, in words; of other accounts' processes only that they are others'."""
    wanted = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal() and wanted & _open_sockets(entry.name):
            words = Path(f"/proc/{entry.name}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            return f"process {entry.name} ({words[:80]})"
    return "another account's process"


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == "0A":
                inodes.add(fields[9])
    return inodes


def _open_sockets(pid: str) -> set[str]:
    try:
        return {os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")}
    except OSError:
        return set()
