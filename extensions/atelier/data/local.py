"""A root that is a folder of this machine."""

from __future__ import annotations

import heapq
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from atelier.data.entries import Entry, Listing
from atelier.data.paths import name_problem, split_path
from atelier.data.sources import FileSource
from atelier.data.walk import is_a_folder, not_a_folder, reopen, walk_to
from atelier.errors import AtelierError, RefusedInput
from atelier.wire import page_position, page_token

_Key = tuple[str, str]


class LocalRoot:
    """A folder; every place is reached from its descriptor (`atelier.data.walk`), and links never lead out of it.

    Parameters
    ----------
    name : str
        What clients call it: ``home``, ``datasets/<name>`` or ``runs/<id>``.
    folder : Path
        Where it lies. It need not exist yet; then every path below it is not found.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder

    def list_page(self, path: str, limit: int, page: str | None) -> Listing:
        """A page of a folder, without hidden names. Reads all names and ``stat``s only those it shows."""
        names, shown = split_path(path), self._shown(path)
        with walk_to(self.folder, names, shown) as held:
            if not stat.S_ISDIR(os.fstat(held).st_mode):
                raise not_a_folder(shown)
            folder = reopen(held, os.O_RDONLY | os.O_DIRECTORY, shown)
            try:
                return self._page(folder, names, limit, page)
            finally:
                os.close(folder)

    def describe(self, path: str) -> Entry:
        """What lies at a path, links followed; the root itself is a folder named ``""``."""
        names = split_path(path)
        with walk_to(self.folder, names, self._shown(path)) as held:
            return _entry(names[-1] if names else "", os.fstat(held))

    def open(self, path: str) -> FileSource:
        """The content of a regular file; a folder, a device, a pipe and a socket are refused."""
        shown = self._shown(path)
        with walk_to(self.folder, split_path(path), shown) as held:
            mode = os.fstat(held).st_mode
            if stat.S_ISDIR(mode):
                raise is_a_folder(shown)
            if not stat.S_ISREG(mode):
                raise RefusedInput(
                    "special_file", f"{shown} is a device, a pipe or a socket.", hint="Pick a regular file."
                )
            return FileSource(reopen(held, os.O_RDONLY, shown))

    def _shown(self, path: str) -> str:
        return f"{self.name}/{path}".rstrip("/")

    def _page(self, folder: int, names: tuple[str, ...], limit: int, page: str | None) -> Listing:
        folders, others = _names(folder)
        after = page_position(page) if page else {}
        first = _first(folders, limit + 1, None if "file" in after else str(after.get("folder", "")))
        picked = first + _first(others, limit + 1 - len(first), str(after.get("file", "")))
        shown = picked[:limit]
        token = None
        if len(picked) > limit:
            token = page_token(**{"folder" if limit <= len(first) else "file": shown[-1]})
        entries = tuple(entry for name in shown if (entry := self._describe(folder, names, name)))
        return Listing(entries, token, len(folders) + len(others))

    def _describe(self, folder: int, names: tuple[str, ...], name: str) -> Entry | None:
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        entry = _entry(name, status)
        return self._followed(entry, (*names, name)) if entry.kind == "link" else entry

    def _followed(self, entry: Entry, names: Sequence[str]) -> Entry:
        """A link's entry with what it leads to, as far as that lies in this root."""
        try:
            with walk_to(self.folder, names, entry.name) as held:
                target = _entry(entry.name, os.fstat(held))
        except AtelierError as problem:
            link = "outside" if problem.code == "outside_root" else "broken"
            return Entry(entry.name, "link", None, entry.modified_s, link, _WHY[link])
        return Entry(entry.name, "link", target.size_bytes, target.modified_s, target.kind, target.problem)


_WHY = {"outside": "leads out of this root, and is not followed", "broken": "leads nowhere"}


def _names(folder: int) -> tuple[list[str], list[str]]:
    """Names of the folders, and of all else, in a folder; the kind comes with the name, without a ``stat``."""
    folders: list[str] = []
    others: list[str] = []
    with os.scandir(folder) as found:
        for item in found:
            name = item.name
            if name[0] != ".":
                (folders if item.is_dir(follow_symlinks=False) else others).append(name)
    return folders, others


def _first(names: list[str], count: int, after: str | None) -> list[str]:
    """The first ``count`` names behind ``after`` in the order of a listing; ``after=None`` is behind all."""
    if after is None or count <= 0:
        return []
    keys: Iterator[_Key] = zip(map(str.lower, names), names, strict=True)
    if after:
        last = (after.lower(), after)
        keys = (key for key in keys if key > last)
    return [name for _, name in heapq.nsmallest(count, keys)]


def _printable(name: str) -> str:
    return name.encode(errors="surrogateescape").decode(errors="replace")


def _entry(name: str, status: os.stat_result) -> Entry:
    problem = name_problem(name)
    text = _printable(name)
    if stat.S_ISDIR(status.st_mode):
        return Entry(text, "folder", None, status.st_mtime, problem=problem)
    if stat.S_ISLNK(status.st_mode):
        return Entry(text, "link", None, status.st_mtime, problem=problem)
    if not stat.S_ISREG(status.st_mode):
        problem = "is a device, a pipe or a socket"
    return Entry(text, "file", status.st_size, status.st_mtime, problem=problem)
