"""Reads the recorder's events from the spool, each once, in order; a torn last line waits for its rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from atelier.errors import AtelierError, Unreachable


class EventReader:
    """Hands each whole line of a growing file of JSON objects to a taker.

    The place moves on after the taker returns, so an event whose taking was cut short by an absent service comes again.
    """

    def __init__(self, path: Path, take: Callable[[dict[str, Any]], None]) -> None:
        self._path, self._take = path, take
        self._offset = 0

    def read(self) -> None:
        """Take all that is new.

        Raises
        ------
        Unreachable
            The taker could not reach the service; the event comes again.
        """
        if not self._path.exists():
            return
        with self._path.open("rb") as stream:
            stream.seek(self._offset)
            for line in stream:
                if not line.endswith(b"\n"):
                    return
                self._one(line)
                self._offset += len(line)

    def _one(self, line: bytes) -> None:
        try:
            event = json.loads(line)
            if isinstance(event, dict):
                self._take(event)
        except Unreachable:
            raise
        except AtelierError as problem:
            if problem.code == "stale_attempt":
                raise
            print(f"An event of the run was refused: {problem}", flush=True)
        except (ValueError, KeyError, TypeError, OSError) as problem:
            print(f"An event of the run can't be taken: {problem!r}: {line[:200]!r}", flush=True)
