"""The marks by which the processes of one attempt are found: which attempt it is, and of which home.

A home that was restored from a backup has the same runs as the one that it was made of.
"""

from __future__ import annotations

from pathlib import Path

from atelier.local.processes import marked

ATTEMPT_KEY = "ATELIER_ATTEMPT_KEY"
ATTEMPT_PLACE = "ATELIER_ATTEMPT_PLACE"


def marks_of(key: str, folder: Path) -> dict[str, str]:
    """What the agent of an attempt, and with it all that it starts, has in its environment."""
    return {ATTEMPT_KEY: key, ATTEMPT_PLACE: str(folder.resolve())}


def processes_of(key: str, folder: Path) -> list[int]:
    """Ids of the processes of an attempt whose folder this is; of those without a place, the ones that bear its key."""
    mine = f"{ATTEMPT_PLACE}={folder.resolve()}".encode()
    begin = f"{ATTEMPT_PLACE}=".encode()
    return marked(
        f"{ATTEMPT_KEY}={key}".encode().__eq__, unless=lambda entry: entry.startswith(begin) and entry != mine
    )
