"""What the data browser asks for: roots, pages of folders, looks at files; knows nothing of widgets."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atelier import data
from atelier.client import Client
from atelier.client.address import address_in, live_address
from atelier.data.paths import split_path
from atelier.errors import RefusedInput
from atelier.home import atelier_home

HOME = {"name": "home", "title": "Home"}


@dataclass(frozen=True)
class Browsing:
    """The answers of a data browser. ``home`` is read in this process, every other root by the run service."""

    def roots(self, *, start: bool = False) -> dict[str, Any]:
        """The roots that the user may browse.

        Parameters
        ----------
        start : bool
            Start a run service where none is alive. Without it only ``home`` is then known, and ``more`` is true.
        """
        if not start and not _has_service():
            return {"items": [HOME], "more": True}
        items = [{"name": root["name"], "title": root["title"]} for root in Client.find().roots()]
        return {"items": [HOME, *items], "more": False}

    def listing(self, root: str, path: str, page: str | None = None) -> dict[str, Any]:
        """A page of a folder, as `atelier.data.list` gives it."""
        return data.list(f"{_checked(root)}/{path}", page=page).content

    def look(self, root: str, path: str, **wanted: Any) -> dict[str, Any]:
        """A preview and the code that gives the same in a cell."""
        place = f"{_checked(root)}/{path}"
        return data.preview(place, **wanted).content | {"code": code_for(place, **wanted)}


def code_for(place: str, **wanted: Any) -> str:
    """The line that a user puts into a cell to get a preview."""
    options = "".join(f", {name}={value!r}" for name, value in wanted.items())
    return f"atelier.data.preview({json.dumps(place, ensure_ascii=False)}{options})"


def parent_of(path: str) -> str:
    """The folder that a path lies in."""
    return "/".join(split_path(path)[:-1])


def _checked(root: str) -> str:
    if not root or ".." in root.split("/"):
        raise RefusedInput("unknown_root", f"There is no root {root!r}.", hint="Pick one of the list.")
    return root


def _has_service() -> bool:
    environ = os.environ
    return address_in(environ) is not None or live_address(Path(atelier_home(environ))) is not None
