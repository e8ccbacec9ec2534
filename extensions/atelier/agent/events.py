"""Reads the recorder's events from the spool, each once, in order; a torn last line waits for its rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from atelier.agent.held import HeldFile
from atelier.crash_points import crash_point
from atelier.errors import AtelierError, Unreachable
from atelier.local.plain import open_regular, write_small

MOST_LINE_BYTES = 1 << 20

OVER = frozenset({"stale_attempt", "unauthenticated", "unknown_run"})
"""Codes of refusals after which the service takes nothing of this attempt any more."""


class EventReader:
    """Hands each whole line of a growing file of JSON objects to a taker.

    The place moves on after the taker returns, so an event whose taking was cut short by a service that is away or
    fails comes again; it is noted beside the file, for an agent that takes over.

    Parameters
    ----------
    path : Path
        The file.
    take : callable
        Gets each event, and answers whether there is something to forget.
    complain : callable
        Gets a sentence on each line that can't be taken; the next ones are read nevertheless.
    forget : callable
        Gets such an event, and each that was refused, again when it is noted that it won't come any more.
    """

    def __init__(
        self,
        path: Path,
        take: Callable[[dict[str, Any]], object],
        complain: Callable[[str], None] = print,
        *,
        forget: Callable[[dict[str, Any]], None] = lambda event: None,
    ) -> None:
        self._take, self._complain, self._forget = take, complain, forget
        self._is_too_long = False
        self._mark = path.with_name(f"{path.name}.taken")
        self._offset = _offset_in(self._mark)
        self._file = HeldFile(path, complain)

    def hold(self) -> None:
        """Open the file, before anybody can replace it."""
        self._file.hold()

    @property
    def size_bytes(self) -> int:
        """How much was told."""
        return self._file.size_bytes

    def read(self) -> None:
        """Take all that is new.

        Raises
        ------
        Unreachable
            The service was away or failed; the event comes again.
        """
        if not self._file.hold():
            return
        self._file.follow_name()
        self._offset = self._file.go_on(self._offset)
        before = self._offset
        try:
            self._read_lines()
        finally:
            if self._offset != before:
                self._note()

    def _note(self) -> None:
        """Note the place, whole or not at all; without it an agent that takes over takes some events again."""
        try:
            write_small(self._mark, str(self._offset).encode())
        except OSError as problem:
            print(f"{self._mark.name} can't be written: {problem}", flush=True)

    def _read_lines(self) -> None:
        with self._file.reader() as stream:
            stream.seek(self._offset)
            while line := stream.readline(MOST_LINE_BYTES):
                spent = None
                if line.endswith(b"\n"):
                    if not self._is_too_long and line.strip():
                        spent = self._one(line)
                    self._is_too_long = False
                elif len(line) == MOST_LINE_BYTES:
                    self._pass_over()
                else:
                    return
                self._offset += len(line)
                if spent is not None:
                    crash_point("agent.event.taken")
                    self._note()
                    crash_point("agent.event.noted")
                    self._forget(spent)
                    crash_point("agent.event.after")

    def _pass_over(self) -> None:
        if not self._is_too_long:
            self._complain(f"A line of more than {MOST_LINE_BYTES} bytes about the run was left out.")
        self._is_too_long = True

    def _one(self, line: bytes) -> dict[str, Any] | None:
        """Take a line; the event if there is something to forget of it."""
        event = None
        try:
            event = json.loads(line)
            crash_point("agent.event.before")
            return event if self._take(event) else None
        except Unreachable:
            raise
        except AtelierError as problem:
            if problem.code in OVER:
                raise
            self._complain(f"What the code told of its run was refused: {problem.message}")
        except (
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            ArithmeticError,
            RecursionError,
            OSError,
        ) as problem:
            self._complain(f"What the code told of its run can't be taken: {line[:100]!r} ({problem!r})"[:400])
        return event if isinstance(event, dict) else None


def _offset_in(mark: Path) -> int:
    """The place that was noted; the beginning where none can be read: to take an event again does no harm."""
    try:
        with open_regular(mark) as stream:
            return int(stream.read(20))
    except (OSError, ValueError):
        return 0
