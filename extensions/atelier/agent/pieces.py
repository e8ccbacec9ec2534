"""What of a growing file may be sent next: pieces that end with a line; a line that is too long is blanked."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

CHUNK_BYTES = 1 << 20
LINE_BYTES = 4 << 20
"""The longest line of metrics, and the most bytes that the service takes at once."""


class Pieces:
    """Hands out the pieces of a file of lines, one after the other.

    Of a line of more than `LINE_BYTES` spaces are handed out, as many as it has bytes: so a place in the file stays the
    place in what was sent, also for an agent that takes over.

    Parameters
    ----------
    complain : callable
        Gets a sentence on the first such line.
    """

    def __init__(self, complain: Callable[[str], object]) -> None:
        self._complain = complain
        self._blank_from = -1
        self.long_lines = 0
        """How many lines were too long."""

    def next(self, source: BinaryIO, offset: int) -> bytes:
        """What may be sent from a place on; empty when no line ends after it."""
        if offset == self._blank_from:
            return self._blank(_read(source, offset, CHUNK_BYTES), offset)
        for length in (CHUNK_BYTES, LINE_BYTES):
            data = _read(source, offset, length)
            whole = data.rfind(b"\n") + 1
            if whole or len(data) < length:
                return data[:whole]
        self.long_lines += 1
        if self.long_lines == 1:
            self._complain(f"A line of more than {LINE_BYTES} bytes of metrics was left out.")
        return self._blank(data, offset)

    def _blank(self, data: bytes, offset: int) -> bytes:
        rest, end, _ = data.partition(b"\n")
        self._blank_from = -1 if end else offset + len(rest)
        return b" " * len(rest) + end


def _read(source: BinaryIO, offset: int, length: int) -> bytes:
    source.seek(offset)
    return source.read(length)
