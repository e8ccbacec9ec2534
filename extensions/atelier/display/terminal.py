"""What others wrote, made harmless for a terminal: colours may stay, everything else that would steer it goes.

A log can hold anything; raw, it could set the clipboard, rename the window, or write over what stands above it.
"""

from __future__ import annotations

import re

_ESCAPE = re.compile(
    r"(?P<csi>(?:\x1b\[|\x9b)(?P<arguments>[0-?]*)[ -/]*(?P<final>[@-~]))"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"  # OSC, DCS and their like
    r"|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f]"  # stays: backspace, tab, newline, return
)
_BEGUN = re.compile(
    r"(?:(?:\x1b\[|\x9b)[0-?]*[ -/]*|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*\x1b?|\x1b[ -/]*)\Z"
)
_MOST_HELD = 4096
_RESET = "\x1b[0m"


class HarmlessText:
    """Makes a text harmless that comes in pieces, which may be cut within an escape sequence.

    Parameters
    ----------
    colours : bool
        Whether colours and the like (SGR) stay; False for what is no terminal.
    """

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours
        self._held = ""
        self._is_coloured = False

    def feed(self, piece: str) -> str:
        """The next piece; the beginning of a sequence at its end is held back until the rest comes."""
        text = self._held + piece
        begun = _BEGUN.search(text)
        end = begun.start() if begun and len(text) - begun.start() <= _MOST_HELD else len(text)
        self._held = text[end:]
        return _ESCAPE.sub(self._kept, text[:end])

    def end(self) -> str:
        """What has to follow the last piece: colours go back to what they were."""
        self._held = ""
        last = _RESET if self._is_coloured else ""
        self._is_coloured = False
        return last

    def _kept(self, match: re.Match[str]) -> str:
        arguments = match["arguments"]
        if not (self._colours and match["final"] == "m" and re.fullmatch(r"[0-9;:]*", arguments)):
            return ""
        self._is_coloured = bool(arguments.strip("0;"))
        return f"\x1b[{arguments}m"


def harmless(text: str, *, colours: bool) -> str:
    """A whole text made harmless, as `HarmlessText` does."""
    made = HarmlessText(colours=colours)
    return made.feed(text) + made.end()
