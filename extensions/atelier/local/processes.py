"""Processes found by a mark in their environment, and ended: what a user server or its kernels started, however nested.

A process that cleared its environment is not found by it; see `adopt_orphans`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

POLL_S = 0.05
KILL_PATIENCE_S = 5.0
_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies, so that double-forked daemons are still ours."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def marked(is_mark: Callable[[bytes], bool], *, unless: Callable[[bytes], bool] = lambda entry: False) -> list[int]:
    """Ids of this account's processes with an environment entry (``b"NAME=value"``) that fits; never this one.

    One with an entry that fits ``unless`` is left out.
    """
    environments = ((pid, _environment(pid)) for pid in _pids() if pid != os.getpid())
    return [pid for pid, entries in environments if any(map(is_mark, entries)) and not any(map(unless, entries))]


def end(find: Callable[[], Iterable[int]], *, patience_s: float) -> None:
    """Send SIGTERM to all that ``find`` finds, and SIGKILL to what is left after ``patience_s``; new ones are seen too.

    Without patience there is no SIGTERM, which an agent would take for an order, and begin to say so. Returns at the
    latest 5 s after that: a process that hangs in the kernel can't be waited for.
    """
    deadline = time.monotonic() + patience_s
    if patience_s > 0:
        _signal(find(), signal.SIGTERM)
    while left := list(find()):
        if time.monotonic() > deadline + KILL_PATIENCE_S:
            return
        if time.monotonic() >= deadline:
            _signal(left, signal.SIGKILL)
        time.sleep(POLL_S)


def started_at(pid: int) -> str:
    """What tells a process from a later one with the same id (boot and start time); empty when there is none.

    A zombie is none: where process 1 reaps late or never (a container without an init), an orphan stays one for long.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
    state, *rest = stat.rpartition(")")[2].split()
    return "" if state in "ZX" else f"{boot}:{rest[18]}"


def port_holder(port: int) -> str:
    """Who listens on a TCP port, in words; of other accounts' processes only that they are others'."""
    wanted = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for pid in _pids():
        if wanted & _open_files(pid):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            return f"process {pid} ({words[:80]})"
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


def _open_files(pid: int) -> set[str]:
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return set()
    return {_file_behind(pid, number) for number in numbers}


def _file_behind(pid: int, number: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/fd/{number}")
    except OSError:
        return ""


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]
