"""A root in an object store, or in whatever else fsspec opens.

The administrator's URL is opened once, and a client's path only extends it: the path is never parsed as a URL
again, so a ``::`` or a ``?`` in it is a part of a name.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from typing import Any

from atelier.data.entries import Entry, Listing
from atelier.data.paths import name_problem, split_path
from atelier.data.sources import Source
from atelier.data.walk import is_a_folder, not_a_folder, not_found
from atelier.errors import AtelierError, NotAllowed, Unavailable, Unreachable
from atelier.wire import page_position, page_token


class ObjectSource:
    """One object, read by ranges; nothing is cached and nothing read ahead."""

    def __init__(self, system: Any, path: str, size_bytes: int, shown: str) -> None:
        self._system, self._path, self._shown = system, path, shown
        self.size_bytes = size_bytes

    def read(self, offset: int, length: int) -> bytes:
        with _told(self._shown):
            return bytes(self._system.cat_file(self._path, start=offset, end=offset + length))

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        starts = [offset for offset, _ in ranges]
        ends = [offset + length for offset, length in ranges]
        with _told(self._shown):
            parts = self._system.cat_ranges([self._path] * len(ranges), starts, ends, on_error="raise")
            return [bytes(part) for part in parts]

    def close(self) -> None:
        """Nothing is held open."""


class ObjectRoot:
    """A prefix of an object store.

    Parameters
    ----------
    name : str
        What clients call it.
    url : str
        What fsspec opens, e.g. ``s3://bucket/prefix``; credentials come from this process's own environment.
    """

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.url = url

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """The file system and the root's path in it."""
        try:
            core = importlib.import_module("fsspec.core")
            system, base = core.url_to_fs(self.url, use_listings_cache=False)
        except ImportError as problem:
            raise Unavailable(
                "library_missing",
                f"{self.name} needs a library that is not here: {problem}",
                hint="Ask the administrator to install it.",
            ) from problem
        return system, str(base).rstrip("/")

    def list_page(self, path: str, limit: int, page: str | None) -> Listing:
        system, place = self._place(path)
        shown = self._shown(path)
        with _told(shown):
            found = system.ls(place, detail=True)
        if len(found) == 1 and found[0]["name"].rstrip("/") == place and found[0]["type"] == "file":
            raise not_a_folder(shown)
        return page_of([entry for item in found if (entry := _entry(item, place))], limit, page)

    def describe(self, path: str) -> Entry:
        system, place = self._place(path)
        names = split_path(path)
        with _told(self._shown(path)):
            found = system.info(place)
        name = names[-1] if names else ""
        return Entry(name, "folder") if found["type"] == "directory" else _file(name, found)

    def open(self, path: str) -> ObjectSource:
        system, place = self._place(path)
        shown = self._shown(path)
        with _told(shown):
            found = system.info(place)
        if found["type"] == "directory":
            raise is_a_folder(shown)
        return ObjectSource(system, place, int(found["size"] or 0), shown)

    def _place(self, path: str) -> tuple[Any, str]:
        names = split_path(path)
        system, base = self._opened
        return system, "/".join((base, *names))

    def _shown(self, path: str) -> str:
        return f"{self.name}/{path}".rstrip("/")


def page_of(entries: Sequence[Entry], limit: int, page: str | None) -> Listing:
    """A page of entries that are all known already, in the order of every listing."""
    ordered = sorted(entries, key=_order)
    last = page_position(page) if page else {}
    after = (int(bool(last.get("file"))), str(last.get("name", "")).lower(), str(last.get("name", "")))
    rest = [entry for entry in ordered if _order(entry) > after] if last else ordered
    token = None
    if len(rest) > limit:
        end = rest[limit - 1]
        token = page_token(file=int(end.kind != "folder"), name=end.name)
    return Listing(tuple(rest[:limit]), token, len(ordered))


def _order(entry: Entry) -> tuple[int, str, str]:
    return int(entry.kind != "folder"), entry.name.lower(), entry.name


def _entry(found: Mapping[str, Any], folder: str) -> Entry | None:
    """One item of a fsspec listing; None for the folder itself, for hidden names and for what lies elsewhere."""
    path = str(found["name"]).rstrip("/")
    parent, _, name = path.rpartition("/")
    if parent.lstrip("/") != folder.lstrip("/") or not name or name.startswith("."):
        return None
    return Entry(name, "folder", problem=name_problem(name)) if found["type"] == "directory" else _file(name, found)


def _file(name: str, found: Mapping[str, Any]) -> Entry:
    changed = found.get("LastModified") or found.get("mtime") or found.get("created") or found.get("updated")
    epoch_s = (
        changed.timestamp() if isinstance(changed, datetime) else changed if isinstance(changed, (int, float)) else None
    )
    return Entry(name, "file", found.get("size"), epoch_s, problem=name_problem(name))


@contextmanager
def _told(shown: str) -> Iterator[None]:
    """Whatever a storage library raises as ours; each backend has exceptions of its own, hence all of them."""
    try:
        yield
    except AtelierError:
        raise
    except FileNotFoundError as problem:
        raise not_found(shown) from problem
    except NotADirectoryError as problem:
        raise not_a_folder(shown) from problem
    except PermissionError as problem:
        raise NotAllowed(
            "permission_denied", f"The storage does not let this service read {shown}.", hint="Ask the administrator."
        ) from problem
    except Exception as problem:
        raise Unreachable(
            "root_unreachable",
            f"{shown} can't be reached now ({type(problem).__name__}).",
            hint="Try again; ask the administrator if it recurs.",
        ) from problem


def _fits_the_protocol(source: ObjectSource) -> Source:
    return source
