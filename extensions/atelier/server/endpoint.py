"""Which run service this user server asks: the hub's, else the embedded one of this OS user."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from atelier.client.address import Address, address_in, noted_service, origin_of, read_token
from atelier.errors import AtelierError, Unreachable
from atelier.home import atelier_home


def find_endpoint(environ: Mapping[str, str] | None = None) -> Address:
    """The service that ``ATELIER_URL`` names, else the one in ``$ATELIER_HOME/run/service.json``; starts none.

    Files are read at each call, for a restarted embedded service has another token. Nothing is connected.

    Raises
    ------
    Unreachable
        ``service_not_running``: there is none.
    NotAllowed
        ``no_token``: ``ATELIER_URL`` without a token.
    """
    given = os.environ if environ is None else environ
    return address_in(given) or _noted(atelier_home(given))


def _noted(home: Path) -> Address:
    note = noted_service(home)
    if note is None or not note.get("token_file"):
        raise _not_running("No run service is running on this computer.")
    try:
        token = read_token(Path(str(note["token_file"])))
        if note.get("socket"):
            return Address("http://atelier", token, str(note["socket"]))
        return Address(origin_of(str(note.get("url"))), token)
    except AtelierError as problem:
        raise _not_running(problem.message) from problem


def _not_running(message: str) -> Unreachable:
    return Unreachable("service_not_running", message, hint="It starts by itself with the next run that you submit.")
