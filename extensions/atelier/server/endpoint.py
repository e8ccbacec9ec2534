"""Where the run service is, and with which token it is asked."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from atelier.errors import Unreachable
from atelier.settings import atelier_home
from atelier.wire import PREFIX

API_PATH = "/api/v1"


@dataclass(frozen=True)
class Endpoint:
    """An address of the run service.

    Parameters
    ----------
    url : str
        Base without a trailing slash, e.g. ``"http://127.0.0.1:8000/services/atelier"``.
    token : str
        The hub's token of this user server, or the private one of the embedded service.
    socket : str or None
        Unix socket that carries the requests instead of the host in ``url``.
    """

    url: str
    token: str = field(repr=False)
    socket: str | None = None

    @property
    def api(self) -> str:
        return self.url + API_PATH


def find_endpoint(environ: Mapping[str, str] | None = None) -> Endpoint:
    """The service of this user server: ``ATELIER_URL``, else the one named in ``$ATELIER_HOME/run/service.json``.

    Files are read at each call, for a restarted embedded service has another token.

    Raises
    ------
    Unreachable
        ``service_not_running``: neither is there.
    """
    given = dict(os.environ if environ is None else environ)
    if given.get("ATELIER_URL"):
        return Endpoint(given["ATELIER_URL"].rstrip("/"), _given_token(given))
    return _embedded(atelier_home(given) / "run" / "service.json")


def _given_token(environ: Mapping[str, str]) -> str:
    for name in ("ATELIER_TOKEN_FILE", "JUPYTERHUB_API_TOKEN_FILE"):
        if environ.get(name):
            return _read_token(Path(environ[name]))
    return environ.get("JUPYTERHUB_API_TOKEN", "")


def _embedded(described: Path) -> Endpoint:
    try:
        told = json.loads(described.read_text(encoding="utf-8"))
        token_file, socket, url = told["token_file"], told.get("socket"), told.get("url")
    except FileNotFoundError as problem:
        raise _not_running("No run service is running on this computer.") from problem
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise _not_running(f"{described} does not describe a run service.") from problem
    base = str(url or f"http://localhost{PREFIX}").rstrip("/")
    return Endpoint(base, _read_token(Path(token_file)), str(socket) if socket else None)


def _read_token(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as problem:
        raise _not_running(f"The service's token can't be read from {path}.") from problem


def _not_running(message: str) -> Unreachable:
    return Unreachable("service_not_running", message, hint="It starts by itself with the next run that you submit.")
