"""Who has locked a SQLite file, as the kernel tells."""

from __future__ import annotations

import os
from pathlib import Path

_FIRST_BYTE = 120
"""Of the shared memory beside a file with a write-ahead log: its byte of writers, as SQLite's file format says."""


def lock_holders(path: Path) -> list[str]:
    """Other processes that hold a lock of a writer on a database, in words; those of other accounts by number alone."""
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
        inodes = {os.stat(name).st_ino: name.endswith("-shm") for name in _files(path)}
    except OSError:
        return []
    found: dict[int, str] = {}
    for line in lines:
        fields = line.split()
        if len(fields) < 8 or fields[1] != "POSIX" or fields[3] != "WRITE":
            continue
        is_shared_memory, pid = inodes.get(int(fields[5].rpartition(":")[2])), int(fields[4])
        is_of_a_writer = is_shared_memory is False or (is_shared_memory and fields[6] == str(_FIRST_BYTE))
        if is_of_a_writer and pid > 0 and pid != os.getpid():
            found[pid] = f"process {pid}{_name_of(pid)}"
    return [found[pid] for pid in sorted(found)]


def _files(path: Path) -> list[str]:
    return [str(each) for each in (path, Path(f"{path}-shm")) if each.exists()]


def _name_of(pid: int) -> str:
    try:
        return f" ({Path(f'/proc/{pid}/comm').read_text(encoding='utf-8', errors='replace').strip()})"
    except OSError:
        return ""
