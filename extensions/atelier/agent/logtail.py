"""The end of a log that is longer than what is kept of it: parts of a ring on the disk, which outlive their agent."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from atelier.local.plain import open_regular, read_small, write_whole

PARTS = 4
"""The ring has so many, and one that is being written; the oldest goes for a new one."""

PIECE_BYTES = 1 << 20
MOST_NOTE_BYTES = 100


class LogTail:
    """Keeps the last bytes of what is written to it, to be appended to the log at its end.

    Each part is named by the place of its first byte in all that was written. So whoever finds the folder knows how
    much came, and one that is appended by halves can be appended to the end. Without the note on where the log ended,
    damaged by a loss of power or by the run, all parts are appended.

    Parameters
    ----------
    folder : Path
        Where the parts lie; made when the first byte comes.
    limit_bytes : int
        How many bytes are kept; what the folder was made with holds on.
    """

    def __init__(self, folder: Path, limit_bytes: int = 0) -> None:
        self._folder, self._limit_bytes = folder, limit_bytes
        self._after: int | None = None
        self._begins = sorted(int(path.name) for path in folder.glob("[0-9]*"))
        self.size_bytes = 0
        """How much came."""
        if self._begins:
            self._after, self._limit_bytes = self._noted() or (None, limit_bytes)
            self.size_bytes = self._begins[-1] + self._path(self._begins[-1]).stat().st_size
        self._descriptor = -1

    @property
    def dropped_bytes(self) -> int:
        """How much is left out of what came."""
        return max(0, self.size_bytes - self._limit_bytes)

    @property
    def _note(self) -> Path:
        return self._folder / "after"

    def _noted(self) -> tuple[int, int] | None:
        """How long the log was, and how much is kept after that; None when the note is damaged."""
        with contextlib.suppress(OSError, ValueError):
            after, limit_bytes = map(int, read_small(self._note, MOST_NOTE_BYTES).split())
            return after, limit_bytes
        return None

    @property
    def _part_bytes(self) -> int:
        return max(1, -(-self._limit_bytes // PARTS))

    def write(self, data: bytes, after: int) -> int:
        """Write some of these bytes, which come when the log has ``after`` bytes; how many.

        Raises
        ------
        OSError
            There is no room.
        """
        if not self._begins or self.size_bytes - self._begins[-1] >= self._part_bytes:
            self._begin(after)
        if self._descriptor < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            self._descriptor = os.open(self._path(self._begins[-1]), flags, 0o600)
        written = os.write(self._descriptor, data[: self._begins[-1] + self._part_bytes - self.size_bytes])
        self.size_bytes += written
        return written

    def _begin(self, after: int) -> None:
        """Begin a part, after the oldest one has gone for it."""
        if not self._begins:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            write_whole(self._note, f"{after} {self._limit_bytes}".encode())
            self._after = after
        self._let_go()
        while len(self._begins) > PARTS:
            self._path(self._begins.pop(0)).unlink(missing_ok=True)
        self._begins.append(self.size_bytes)

    def append_to(self, log: int) -> int:
        """Append it, after a line on what is left out, to the log whose descriptor this is; how much had no room.

        Each part goes when it is appended, which makes room for the next one. Nothing where nothing came.
        """
        self._let_go()
        if not self._begins:
            return 0
        begin, before, words = self._joint(os.fstat(log).st_size)
        _write(log, words[max(0, os.fstat(log).st_size - before) :])
        before += len(words)
        for place in self._begins:
            done = os.fstat(log).st_size - before  # of what is kept
            _copy(self._path(place), log, max(begin + done - place, begin - place, 0))
            if place != self._begins[-1]:
                self._path(place).unlink(missing_ok=True)
        lost_bytes = before + self.size_bytes - begin - os.fstat(log).st_size
        shutil.rmtree(self._folder, ignore_errors=True)
        return max(0, lost_bytes)

    def _joint(self, log_bytes: int) -> tuple[int, int, bytes]:
        """The first byte to append, where the log ended before anything was appended, and what is said between."""
        if self._after is None:
            return (
                self._begins[0],
                log_bytes,
                b"\n[here bytes may be missing or repeated: a note on them was damaged]\n",
            )
        begin, limit = self.dropped_bytes, self._after + self._limit_bytes
        words = f"\n[{begin} bytes were left out here: this log reached its limit of {limit}]\n" if begin else ""
        return begin, self._after, words.encode()

    def _path(self, begin: int) -> Path:
        return self._folder / f"{begin:020}"

    def _let_go(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def append_tail(log: Path, folder: Path, tell: Callable[[str], object]) -> None:
    """Append to a dead agent's log the end that it had kept; nothing where it had kept none.

    What makes that impossible, as names that a run has changed, is told in a sentence, and is no error.
    """
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            LogTail(folder).append_to(descriptor)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as problem:
        tell(f"The end of the log, which its dead agent had kept, can't be appended: {problem}.")


def _copy(part: Path, log: int, start: int) -> None:
    with contextlib.suppress(OSError), open_regular(part) as source:  # one that the run has removed is lost
        source.seek(start)
        while piece := source.read(PIECE_BYTES):
            _write(log, piece)


def _write(log: int, data: bytes) -> None:
    """Write bytes, or as many as there is room for."""
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(log, data) :]
