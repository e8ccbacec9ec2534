"""Files that are only appended to, line by line, by whoever records; what a full disk takes is counted."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from atelier.crash_points import crash_point
from atelier.local.plain import read_small

_APPEND = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
_DIGITS = 20


class LostLines:
    """Counts the lines that are lost, for all processes that write to one file, in a file that has its room before.

    Parameters
    ----------
    file : Path
        The file that is written to; beside it is one with a number of `_DIGITS` digits.
    """

    def __init__(self, file: Path) -> None:
        self._path = _lost_of(file)

    def make_room(self) -> None:
        """Make the file, unless it is there or there is no room for it."""
        with suppress(OSError):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                os.write(descriptor, b"0" * _DIGITS)
            finally:
                os.close(descriptor)

    def add(self) -> None:
        """Count one more: bytes that are there are written over, which needs no room."""
        self.make_room()
        with suppress(OSError, ValueError), open(self._path, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            count = int(file.read(_DIGITS) or b"0") + 1
            file.seek(0)
            file.write(b"%0*d" % (_DIGITS, count))


def lost_lines(file: Path) -> int:
    """How many lines of a file of a run were lost, as far as anybody could count them."""
    try:
        count = read_small(_lost_of(file), _DIGITS)
    except OSError:  # nobody has written there
        return 0
    return int(count) if count.isdigit() else 0


def _lost_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.lost")


class LineFile:
    """A file that is only appended to, each line by one ``write`` on an ``O_APPEND`` descriptor.

    So lines of threads, of forked children and of other processes never mix, nothing is lost when the process is
    killed, and no lock is needed. A disk in trouble costs lines, never an exception: they are counted, and said once
    on stderr.

    Parameters
    ----------
    path : Path
        The file.
    before_open : callable
        Called before it is opened first.
    lost : LostLines, optional
        Counts the lines that are lost where the agent reads it.
    """

    def __init__(
        self, path: Path, *, before_open: Callable[[], object] = lambda: None, lost: LostLines | None = None
    ) -> None:
        self.path = path
        self._lost = lost
        self.lost_lines = 0
        self._before_open = before_open
        self._descriptor = -1
        self._torn = False

    def append(self, line: bytes) -> None:
        """Append a line; it must end with a newline."""
        try:
            self._write(line)
        except OSError as problem:
            self._lose(problem)

    def append_durably(self, line: bytes) -> None:
        """The same for what must not get lost: it is on the disk when this returns.

        Raises
        ------
        OSError
            The disk is full or broken, and the line is not there.
        """
        self._write(line)
        os.fsync(self._descriptor)

    def announce(self, copy: Path, line: bytes) -> None:
        """Tell durably of a file or folder in the spool.

        Raises
        ------
        OSError
            The disk is full or broken. The copy is removed: nobody would ever hear of it.
        """
        try:
            self.append_durably(line)
        except OSError as problem:
            _remove(copy)
            words = f"{problem.strerror or problem}; {copy.name!r} is not kept, for the run would never hear of it"
            raise OSError(problem.errno, words, str(self.path)) from problem

    def _write(self, line: bytes) -> None:
        descriptor = self._descriptor if self._descriptor >= 0 else self._open()
        if self._torn:
            line = b"\n" + line
        crash_point("recorder.line.before")
        written = os.write(descriptor, line)
        crash_point("recorder.line.after")
        if written < len(line):
            self._torn = not self._take_back(line[:written]) or self._torn
            raise OSError(errno.ENOSPC, f"only {written} of {len(line)} bytes were written", str(self.path))
        self._torn = False

    def _take_back(self, begun: bytes) -> bool:
        """Remove the begin of a line from the end, so that nobody's next line is glued to it; whether it is gone."""
        with suppress(OSError):
            start = os.fstat(self._descriptor).st_size - len(begun)
            if start >= 0 and os.pread(self._descriptor, len(begun), start) == begun:
                os.ftruncate(self._descriptor, start)
                return True
        return False

    def read(self) -> list[Any]:
        """The JSON of every whole line; a line torn by a full disk is left out."""
        found = []
        for line in self.path.read_bytes().split(b"\n") if self.path.exists() else ():
            with suppress(ValueError, RecursionError):
                found.append(json.loads(line))
        return found

    def _open(self) -> int:
        """Open it; two threads that do so at once leave one descriptor unused, which harms nothing."""
        self._before_open()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self.path, _APPEND, 0o644)
        if self._lost is not None:
            self._lost.make_room()
        with suppress(OSError):  # what a process that is no more has begun must not spoil the first line
            size = os.fstat(self._descriptor).st_size
            self._torn = size > 0 and os.pread(self._descriptor, 1, size - 1) != b"\n"
        return self._descriptor

    def _lose(self, problem: OSError) -> None:
        self.lost_lines += 1
        if self._lost is not None:
            self._lost.add()
        if self.lost_lines == 1 and sys.stderr is not None:
            print(
                f"atelier: can't write {self.path}: {problem}. Training goes on; such lines are lost.", file=sys.stderr
            )


def _remove(copy: Path) -> None:
    """Remove a file or a folder, as far as the disk lets it go."""
    shutil.rmtree(copy, ignore_errors=True)
    with suppress(OSError):  # it was a folder
        copy.unlink()
