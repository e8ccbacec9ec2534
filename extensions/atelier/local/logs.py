"""The ends of log files, for messages that say why a program did not start."""

from __future__ import annotations

from pathlib import Path

TAIL_BYTES = 16 * 1024


def log_tail(path: Path, *, lines: int = 12) -> str:
    """The last lines of a log (of its last 16 KiB); empty where there is none or it can't be read."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - TAIL_BYTES))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
