"""The way from a root folder down to a place in it, one name at a time, each opened below the one before.

No link is followed by the kernel, but by hand: its target is read from the very link that was opened, and walked
again from the root or from the folders already held. So nothing that is swapped in between can lead out: a name is
opened once, and what was opened is what is used.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from atelier.errors import AtelierError, NotAllowed, NotFound, RefusedInput

MAX_LINKS = 40
"""As Linux itself (MAXSYMLINKS)."""

_HOLD = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Walk:
    """One descent below a root folder; holds the descriptors of the folders on its way and closes them.

    Parameters
    ----------
    folder : Path
        The root. It may itself be a link: whoever named it chose where it leads.
    shown : str
        How messages call the place, e.g. ``"home/data/a.csv"``.
    """

    def __init__(self, folder: Path, shown: str) -> None:
        self._shown = shown
        self._prefixes = (Path(os.path.abspath(folder)).parts, Path(os.path.realpath(folder)).parts)
        self._links = 0
        with _told(shown):
            self._held = [os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]

    def close(self) -> None:
        while self._held:
            os.close(self._held.pop())

    def to(self, names: Sequence[str]) -> int:
        """A descriptor (``O_PATH``) of the place that the names lead to; the walk keeps it and closes it."""
        pending = deque(names)
        while pending:
            name = pending.popleft()
            if name == "..":
                self._up()
                continue
            with _told(self._shown):
                held = os.open(name, _HOLD, dir_fd=self._held[-1])
            self._held.append(held)
            mode = os.fstat(held).st_mode
            if stat.S_ISLNK(mode):
                pending.extendleft(reversed(self._target(self._held.pop())))
            elif pending and not stat.S_ISDIR(mode):
                raise not_a_folder(self._shown)
        return self._held[-1]

    def _up(self) -> None:
        if len(self._held) == 1:
            raise outside_root(self._shown)
        os.close(self._held.pop())

    def _target(self, link: int) -> list[str]:
        """The names in a link's target, seen from the folder held last; an absolute one begins at the root again."""
        try:
            target = os.readlink("", dir_fd=link)
        finally:
            os.close(link)
        self._links += 1
        if self._links > MAX_LINKS:
            raise RefusedInput(
                "link_loop",
                f"{self._shown} leads through more than {MAX_LINKS} links.",
                hint="Remove the link that leads to itself.",
            )
        if not target.startswith("/"):
            return [part for part in target.split("/") if part not in ("", ".")]
        while len(self._held) > 1:
            os.close(self._held.pop())
        return self._below_root(target)

    def _below_root(self, target: str) -> list[str]:
        parts = Path(target).parts
        for prefix in self._prefixes:
            if parts[: len(prefix)] == prefix:
                return list(parts[len(prefix) :])
        raise outside_root(self._shown)


@contextmanager
def walk_to(folder: Path, names: Sequence[str], shown: str) -> Iterator[int]:
    """The descriptor (``O_PATH``) of a place below a folder, closed at the end of the block."""
    walk = Walk(folder, shown)
    try:
        yield walk.to(names)
    finally:
        walk.close()


def reopen(held: int, flags: int, shown: str) -> int:
    """A readable descriptor of exactly what an ``O_PATH`` descriptor holds; nothing is looked up by name again."""
    with _told(shown):
        return os.open(f"/proc/self/fd/{held}", flags | os.O_CLOEXEC)


def not_a_folder(shown: str) -> RefusedInput:
    return RefusedInput(
        "not_a_folder", f"{shown} is a file, not a folder.", hint="Preview it, or list the folder it lies in."
    )


def is_a_folder(shown: str) -> RefusedInput:
    return RefusedInput("is_a_folder", f"{shown} is a folder, not a file.", hint="List it, and pick one of its files.")


def not_found(shown: str) -> NotFound:
    return NotFound(
        "not_found", f"There is no {shown}.", hint="List the folder it should lie in; upper and lower case matter."
    )


def outside_root(shown: str) -> NotAllowed:
    return NotAllowed(
        "outside_root",
        f"{shown} leads through a link out of its root.",
        hint="Copy the data into the root, or ask the administrator for a root of its own.",
    )


@contextmanager
def _told(shown: str) -> Iterator[None]:
    """Errors of the file system as ours."""
    try:
        yield
    except OSError as problem:
        raise _as_ours(problem, shown) from problem


def _as_ours(problem: OSError, shown: str) -> AtelierError:
    if problem.errno == errno.ENOTDIR:
        return not_a_folder(shown)
    if problem.errno in (errno.ENOENT, errno.EINVAL):
        return not_found(shown)
    if problem.errno in (errno.EACCES, errno.EPERM):
        return NotAllowed("permission_denied", f"{shown} may not be read.", hint="Change its permissions (chmod).")
    return NotAllowed("unreadable", f"{shown} can't be read: {problem.strerror}.", hint="Look at the disk it lies on.")
