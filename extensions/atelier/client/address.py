"""Which run service to talk to: the one named by the environment, else the one of this OS user's home."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from atelier import wire
from atelier.errors import NotAllowed, RefusedInput

CONNECT_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Address:
    """A run service that can be called.

    Parameters
    ----------
    url : str
        What stands before ``/services/atelier/…``, e.g. ``"http://127.0.0.1:8000"``; no slash at its end.
    token : str
        Sent as ``Authorization: token …``.
    socket_path : str, optional
        Unix socket that is connected to in place of the URL's host.
    """

    url: str
    token: str = field(repr=False)
    socket_path: str | None = None

    @property
    def where(self) -> str:
        """The place in words, for messages."""
        return f"the socket {self.socket_path}" if self.socket_path else self.url


def origin_of(url: str) -> str:
    """What stands before ``/services/atelier`` in the URL of a hub, of the service or of its API.

    Raises
    ------
    RefusedInput
        ``bad_url``: not an http or https URL with a host.
    """
    parts = urlsplit(url.strip())
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise RefusedInput(
            "bad_url", f"{url!r} is not the URL of a service.", hint="Write it as http://127.0.0.1:8000."
        )
    path = parts.path.split(wire.PREFIX)[0].rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


def address_in(environ: Mapping[str, str]) -> Address | None:
    """The service that a user server's environment names; None in a plain terminal.

    ``ATELIER_URL`` says where; the token is in the file ``ATELIER_TOKEN_FILE``, else in ``JUPYTERHUB_API_TOKEN``.

    Raises
    ------
    NotAllowed
        ``no_token``: a URL, and no token for it.
    """
    url = environ.get("ATELIER_URL")
    if not url:
        return None
    token_file = environ.get("ATELIER_TOKEN_FILE")
    token = read_token(Path(token_file)) if token_file else environ.get("JUPYTERHUB_API_TOKEN", "")
    if not token:
        raise NotAllowed(
            "no_token",
            f"There is no token for the run service at {url}.",
            hint="Give --token-file FILE, or set ATELIER_TOKEN_FILE; the hub's token page makes one.",
        )
    return Address(origin_of(url), token)


def read_token(path: Path) -> str:
    """The token in a file.

    Raises
    ------
    RefusedInput
        ``bad_token_file``: it can't be read, or is empty.
    """
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as problem:
        raise RefusedInput(
            "bad_token_file", f"The token file {path} can't be read: {problem}.", hint="Name a file that holds a token."
        ) from problem
    if not token:
        raise RefusedInput("bad_token_file", f"The token file {path} is empty.", hint="Name a file that holds a token.")
    return token


def noted_service(home: Path) -> dict[str, Any] | None:
    """What ``run/service.json`` says of the service that holds this home; None where there is no such note."""
    try:
        note = json.loads((home / "run" / "service.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) else None


def live_address(home: Path) -> Address | None:
    """The service of this home if it accepts connections now; a note left by a dead one is None."""
    note = noted_service(home)
    if note is None or not note.get("token_file"):
        return None
    try:
        token = read_token(Path(note["token_file"]))
        if note.get("socket"):
            address = Address("http://atelier", token, str(note["socket"]))
        else:
            address = Address(origin_of(str(note.get("url"))), token)
    except RefusedInput:
        return None
    return address if _accepts(address) else None


def _accepts(address: Address) -> bool:
    try:
        if address.socket_path:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(CONNECT_TIMEOUT_S)
                probe.connect(address.socket_path)
        else:
            parts = urlsplit(address.url)
            place = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
            socket.create_connection(place, CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def environ_with(url: str | None = None, token_file: str | None = None) -> dict[str, str]:
    """The process's environment with the service that a command line names put over it."""
    given = {"ATELIER_URL": url, "ATELIER_TOKEN_FILE": token_file}
    return {**os.environ, **{name: value for name, value in given.items() if value}}
