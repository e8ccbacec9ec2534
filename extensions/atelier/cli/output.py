"""What the command line prints: for people on stdout and stderr, or one JSON document on stdout."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from atelier.display.terminal import HarmlessText, harmless
from atelier.display.text import MAX_CELL, clean, text_table
from atelier.errors import AtelierError
from atelier.wire import error_body

_COLOURS = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "grey": 2, "bold": 1}
STATE_COLOURS = {
    "succeeded": "green",
    "failed": "red",
    "lost": "red",
    "timed_out": "red",
    "cancelled": "yellow",
    "running": "blue",
}


class Output:
    """Where a command's words go.

    Parameters
    ----------
    as_json : bool
        Only `document` and `error` write to stdout, once; everything said to people is left out, or goes to stderr.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._coloured = not as_json and _takes_colours(sys.stdout)
        self._log = HarmlessText(colours=self._coloured)

    def document(self, document: Any) -> None:
        """The one JSON document; nothing without ``--json``."""
        if self.as_json:
            json.dump(document, sys.stdout, ensure_ascii=False, indent=2, allow_nan=False)
            sys.stdout.write("\n")

    def say(self, text: str = "") -> None:
        """A line for people."""
        if not self.as_json:
            print(harmless(text, colours=self._coloured))

    def write(self, text: str) -> None:
        """The next piece of a log, at once: with its colours on a terminal, and never what else would steer that."""
        self._write(self._log.feed(text))

    def end_log(self) -> None:
        """Take the colours back that the log has left."""
        self._write(self._log.end())

    def _write(self, text: str) -> None:
        if not self.as_json:
            sys.stdout.write(text)
            sys.stdout.flush()

    def table(
        self, headings: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str, last_limit: int = MAX_CELL
    ) -> None:
        """Aligned columns for people; a column named ``state`` is coloured, the last one is cut at ``last_limit``."""
        if not rows:
            self.say(empty)
            return
        lines = text_table(headings, rows, last_limit=last_limit).splitlines()
        self.say(self.paint(lines[0], "grey"))
        for row, line in zip(rows, lines[1:], strict=True):
            state = row[headings.index("state")] if "state" in headings else ""
            self.say(
                line.replace(f"  {state}", f"  {self.paint(state, STATE_COLOURS.get(state, ''))}", 1) if state else line
            )

    def facts(self, facts: Mapping[str, str]) -> None:
        """``name  value`` lines, names aligned; an empty value is left out."""
        shown = {name: value for name, value in facts.items() if value}
        wide = max(map(len, shown), default=0)
        for name, value in shown.items():
            self.say(f"  {self.paint(name.ljust(wide), 'grey')}  {clean(value, 400)}")

    def paint(self, text: str, colour: str) -> str:
        """The text in a colour, on a terminal."""
        code = _COLOURS.get(colour)
        return f"\x1b[{code}m{text}\x1b[0m" if self._coloured and code is not None else text

    def note(self, text: str) -> None:
        """A line on stderr, beside whatever stdout carries."""
        sys.stdout.flush()
        print(harmless(text, colours=_takes_colours(sys.stderr)), file=sys.stderr, flush=True)

    def error(self, error: AtelierError) -> None:
        """An error: for people on stderr; with ``--json`` also as the document."""
        self.document(error_body(error))
        self.note(f"error[{error.code}]: {error.message}")
        if error.hint:
            self.note(f"hint: {error.hint}")


def _takes_colours(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR")
