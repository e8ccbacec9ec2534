"""How an agent bears a full disk of its own: it waits for room where it must write, and speaks into the void else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from atelier.local.disk import is_full

LOOK_S = 1.0


def until_room(write: Callable[[], object]) -> None:
    """Write what the agent can't be without, again and again while the disk is full."""
    while True:
        try:
            write()
        except OSError as problem:
            if not is_full(problem):
                raise
            time.sleep(LOOK_S)
        else:
            return


def speak_or_not() -> None:
    """Let what this process says of itself be lost on a full disk: it would raise in whatever thread says it."""
    sys.stdout, sys.stderr = Voice(sys.stdout), Voice(sys.stderr)


class Voice:
    """A text stream on which writing never fails."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text, or lose it."""
        try:
            return self._stream.write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        """Bring it to the disk, or lose it."""
        try:
            self._stream.flush()
        except OSError:
            return
