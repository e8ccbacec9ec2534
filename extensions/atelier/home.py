"""Where this OS user's Atelier keeps its state, without loading the settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def atelier_home(environ: Mapping[str, str] | None = None) -> Path:
    """The folder of all state: ``$ATELIER_HOME``, else ``~/.local/share/atelier``."""
    given = (os.environ if environ is None else environ).get("ATELIER_HOME")
    return Path(given).expanduser().absolute() if given else Path.home() / ".local" / "share" / "atelier"
