"""Named roots of data, and the one listing of them that the service, the server extension and a notebook give.

A root is ``home``, ``datasets/<name>`` of the administrator's catalog, or ``runs/<id>``. Whoever makes a root object
has checked that the caller may use it; below it, a path is checked and reached by `atelier.data.paths` and
`atelier.data.walk`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

from atelier.data.entries import Entry, Listing
from atelier.data.local import LocalRoot
from atelier.data.sources import Source
from atelier.errors import RefusedInput

if TYPE_CHECKING:
    from atelier.settings import Root as CatalogRoot

PAGE_ENTRIES = 200
MAX_PAGE_ENTRIES = 1000

OBJECT_SCHEMES = frozenset({"s3", "gs", "gcs", "az", "abfs", "abfss", "adl", "hf", "memory"})
"""Schemes that fsspec opens for a root of the catalog, beside ``file``, ``http`` and ``https``."""


class Root(Protocol):
    """A place with files. Paths are checked by every method (``bad_path``).

    All methods raise NotFound ``not_found``, RefusedInput ``not_a_folder`` or ``is_a_folder``, NotAllowed
    ``outside_root`` or ``permission_denied``, Unreachable ``root_unreachable``. They may be called from several
    threads.
    """

    name: str

    def list_page(self, path: str, limit: int, page: str | None) -> Listing:
        """A page of a folder; never recursive."""
        ...

    def describe(self, path: str) -> Entry:
        """What lies at a path."""
        ...

    def open(self, path: str) -> Source:
        """The content of a file; the caller closes it."""
        ...


def home_root(folder: Path | None = None) -> LocalRoot:
    """The root ``home``: a folder of this machine, by default the user's home."""
    return LocalRoot("home", Path.home() if folder is None else folder)


def run_root(run_id: str, url: str) -> Root:
    """The root ``runs/<id>``: the folder of a run, by the URL or absolute path where the blobs have it."""
    return _root(f"runs/{run_id}", url)


def catalog_root(entry: CatalogRoot) -> Root:
    """The root ``datasets/<name>`` of an entry in the administrator's catalog.

    Raises
    ------
    RefusedInput
        ``bad_root_url``: a scheme that is not known here, or a chain of them.
    """
    return _root(f"datasets/{entry.name}", entry.url)


def check_root_url(url: str) -> None:
    """Refuse (``bad_root_url``) what can't be a root; touches no network."""
    scheme = urlsplit(url).scheme
    if "::" in re.sub(r"\[[0-9A-Fa-f:.%]*\]", "", url) or (
        scheme and scheme not in OBJECT_SCHEMES | {"file", "http", "https"}
    ):
        raise _bad_url(url, "Use file, http, https, s3, gs, az or hf, and no '::' chain.")
    if scheme == "file" and urlsplit(url).netloc not in ("", "localhost"):
        raise _bad_url(url, "Write file:///absolute/path, with three slashes.")
    if not scheme and not os.path.isabs(url):
        raise _bad_url(url, "Write an absolute path, or file:///absolute/path.")
    if scheme in OBJECT_SCHEMES | {"http", "https"} and not urlsplit(url).netloc:
        raise _bad_url(url, "Name the host or the bucket.")


def list_folder(root: Root, path: str = "", *, limit: int = PAGE_ENTRIES, page: str | None = None) -> dict[str, Any]:
    """One page of a folder as JSON.

    Parameters
    ----------
    root : Root
        Where.
    path : str
        Relative POSIX path of the folder; ``""`` is the root itself.
    limit : int
        Most entries of the page, 1 to 1000.
    page : str or None
        ``next`` of the page before; None is the first page.

    Returns
    -------
    dict
        ``{"root", "path", "items": [{"name", "kind", "size_bytes", "modified_at", "type"}, …], "next", "total"}``.
        ``kind`` is folder, file or link; a link has also ``link`` (folder, file, outside, broken). An item that can't
        be opened has ``problem``. ``total`` is None where it would cost more than the page. Hidden names (a leading
        dot) are left out.

    Raises
    ------
    RefusedInput
        ``bad_path``, ``not_a_folder``, ``bad_page_token``, ``bad_limit``.
    NotFound
        ``not_found``.
    NotAllowed
        ``outside_root``, ``permission_denied``.
    """
    if not 1 <= limit <= MAX_PAGE_ENTRIES:
        raise RefusedInput(
            "bad_limit", f"A page of {limit} entries can't be given.", hint=f"Ask for 1 to {MAX_PAGE_ENTRIES}."
        )
    listing = root.list_page(path, limit, page)
    return {
        "root": root.name,
        "path": "/".join(name for name in path.split("/") if name not in ("", ".")),
        "items": [entry.as_json() for entry in listing.entries],
        "next": listing.next,
        "total": listing.total,
    }


def _root(name: str, url: str) -> Root:
    check_root_url(url)
    scheme = urlsplit(url).scheme
    if scheme in ("", "file"):
        return LocalRoot(name, Path(unquote(urlsplit(url).path) if scheme else url))
    if scheme in ("http", "https"):
        from atelier.data.web import WebRoot

        return WebRoot(name, url)
    from atelier.data.objects import ObjectRoot

    return ObjectRoot(name, url)


def _bad_url(url: str, hint: str) -> RefusedInput:
    return RefusedInput("bad_root_url", f"A root can't be at {url!r}.", hint=hint)
