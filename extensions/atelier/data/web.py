"""A root behind HTTP: ranged GETs to the one host that the administrator named, folders from its own index pages.

A client's names are percent-encoded one by one, so they can't leave the base path. A redirect is followed only to the
same scheme, host, port and base path. The address connected to is looked at after connecting and before a byte is
sent: a link-local one (where clouds keep credentials) is refused, however the name came to lead there.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from urllib.parse import quote, unquote, urljoin, urlsplit

from atelier.data.entries import Entry, Listing
from atelier.data.objects import page_of
from atelier.data.paths import name_problem, split_path
from atelier.data.sources import Source
from atelier.data.walk import is_a_folder, not_a_folder, not_found
from atelier.errors import NotAllowed, Unreachable

TIMEOUT_S = 10.0
MAX_INDEX_BYTES = 4 * 2**20
"""An index page longer than this is cut; it is some 40,000 names."""

_MAX_REDIRECTS = 3
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "atelier"}


class _Connection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = _connected(self.host, self.port, self.timeout)


class _SecureConnection(http.client.HTTPSConnection):
    def connect(self) -> None:
        plain = _connected(self.host, self.port, self.timeout)
        self.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)


def _connected(host: str, port: int, timeout_s: float | None) -> socket.socket:
    found = socket.create_connection((host, port), timeout=timeout_s)
    address = ipaddress.ip_address(str(found.getpeername()[0]).partition("%")[0])
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        found.close()
        raise NotAllowed(
            "address_not_allowed",
            f"{host} leads to {address}, where no data may come from.",
            hint="Ask the administrator.",
        )
    return found


class WebSource:
    """One file behind HTTP, over one connection that is kept while it lasts."""

    def __init__(self, root: WebRoot, target: str, shown: str) -> None:
        self._root, self._target, self._shown = root, target, shown
        self._connection = root.connect()
        with self._root.request(self._connection, "HEAD", target, shown) as answer:
            self.modified_s = _moment(answer.getheader("Last-Modified"))
            size = answer.getheader("Content-Length")
        if size is None:
            self.close()
            raise _cannot(shown, "tell the size of a file")
        self.size_bytes = int(size)

    def read(self, offset: int, length: int) -> bytes:
        if length <= 0:
            return b""
        wanted = {"Range": f"bytes={offset}-{offset + length - 1}"}
        with self._root.request(self._connection, "GET", self._target, self._shown, wanted) as answer:
            if answer.status == 200 and offset > 0:
                self.close()
                raise _cannot(self._shown, "send a part of a file")
            content = answer.read(length)
            if not answer.isclosed():
                self.close()
        return content

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return [self.read(offset, length) for offset, length in ranges]

    def close(self) -> None:
        self._connection.close()


class WebRoot:
    """A folder of a web server.

    Parameters
    ----------
    name : str
        What clients call it.
    url : str
        The folder's URL; nothing outside of it is ever asked for.
    """

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self._origin = urlsplit(url)
        self._base = self._origin.path.rstrip("/") + "/"

    def connect(self) -> http.client.HTTPConnection:
        """A connection to the root's host; nothing is sent yet."""
        kind = _SecureConnection if self._origin.scheme == "https" else _Connection
        return kind(str(self._origin.hostname), self._origin.port, timeout=TIMEOUT_S)

    def list_page(self, path: str, limit: int, page: str | None) -> Listing:
        target, shown = self._target(path), self._shown(path)
        index = _Index()
        with (
            closing(self.connect()) as connection,
            self.request(connection, "GET", target.rstrip("/") + "/", shown) as answer,
        ):
            if not (answer.getheader("Content-Type") or "").startswith("text/html"):
                raise not_a_folder(shown)
            index.feed(answer.read(MAX_INDEX_BYTES).decode(errors="replace"))
        return page_of(index.entries(), limit, page)

    def describe(self, path: str) -> Entry:
        names = split_path(path)
        if not names:
            return Entry("", "folder")
        source = self.open(path)
        source.close()
        return Entry(names[-1], "file", source.size_bytes, source.modified_s)

    def open(self, path: str) -> WebSource:
        if not split_path(path):
            raise is_a_folder(self.name)
        return WebSource(self, self._target(path), self._shown(path))

    @contextmanager
    def request(
        self, connection: http.client.HTTPConnection, method: str, target: str, shown: str,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[http.client.HTTPResponse]:  # fmt: skip
        """An answer of status 200 or 206 whose body can be read within the block.

        The connection can be used again afterwards; it is closed where a part of the body was left unread.
        """
        try:
            with closing(self._answer(connection, method, target, shown, headers or {})) as answer:
                _check(answer, shown)
                yield answer
                if not answer.isclosed() and answer.length != 0:
                    connection.close()
        except BaseException:
            connection.close()
            raise

    def _answer(
        self, connection: http.client.HTTPConnection, method: str, target: str, shown: str, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:  # fmt: skip
        """The first answer that is no redirect."""
        for _ in range(_MAX_REDIRECTS):
            try:
                connection.request(method, target, headers={**_HEADERS, **headers})
                answer = connection.getresponse()
            except (OSError, http.client.HTTPException) as problem:
                raise _unreachable(shown, f"can't be reached now ({type(problem).__name__})") from problem
            if answer.status not in (301, 302, 303, 307, 308):
                return answer
            with closing(answer):
                target = self._redirected(target, answer.getheader("Location") or "", shown)
            connection.close()
        raise _unreachable(shown, "redirects too often")

    def _redirected(self, target: str, location: str, shown: str) -> str:
        here = f"{self._origin.scheme}://{self._origin.netloc}"
        there = urlsplit(urljoin(here + target, location))
        if there.path == f"{target}/":
            raise is_a_folder(shown)
        outside = ".." in unquote(there.path).split("/") or not there.path.startswith(self._base)
        if f"{there.scheme}://{there.netloc}" != here or outside:
            raise NotAllowed(
                "redirect_not_allowed",
                f"{shown} redirects out of its root.",
                hint="Ask the administrator to mend the root's URL.",
            )
        return there.path

    def _target(self, path: str) -> str:
        return self._base + "/".join(quote(name, safe="") for name in split_path(path))

    def _shown(self, path: str) -> str:
        return f"{self.name}/{path}".rstrip("/")


class _Index(HTMLParser):
    """The links of an index page that lead to names right below it."""

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[str, bool] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        link = next((value for key, value in attrs if key == "href" and value), None) if tag == "a" else None
        if link is None or urlsplit(link).scheme or link.startswith(("/", "?", "#", ".")):
            return
        name = unquote(urlsplit(link).path)
        if name and "/" not in name.rstrip("/"):
            self._names[name.rstrip("/")] = name.endswith("/")

    def entries(self) -> list[Entry]:
        return [
            Entry(name, "folder" if folder else "file", problem=name_problem(name))
            for name, folder in self._names.items()
        ]


def _check(answer: http.client.HTTPResponse, shown: str) -> None:
    if answer.status in (404, 410):
        raise not_found(shown)
    if answer.status in (401, 403):
        raise NotAllowed(
            "permission_denied", f"The server does not let this service read {shown}.", hint="Ask the administrator."
        )
    if answer.status not in (200, 206):
        raise _unreachable(shown, f"is answered with status {answer.status}")


def _unreachable(shown: str, what: str) -> Unreachable:
    hint = "Try again; ask the administrator to look at the root's server if it recurs."
    return Unreachable("root_unreachable", f"{shown} {what}.", hint=hint)


def _cannot(shown: str, what: str) -> Unreachable:
    return Unreachable(
        "no_ranges", f"The server of {shown} can't {what}.", hint="Download it to your home, and look at it there."
    )


def _moment(header: str | None) -> float | None:
    try:
        return parsedate_to_datetime(header).timestamp() if header else None
    except ValueError:
        return None


def _fits_the_protocol(source: WebSource) -> Source:
    return source
