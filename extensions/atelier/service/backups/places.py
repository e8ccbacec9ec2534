"""Where the parts of a home lie that a backup holds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import make_url

from atelier.errors import Conflict
from atelier.settings import load_settings
from atelier.storage import BlobStore, open_blobs

DATABASE = "db/atelier.sqlite"
HUB_DATABASE = "db/hub.sqlite"
SETTINGS = "atelier.yaml"
PLAIN_FILES = (SETTINGS, "ports.json")
SECRETS = "secrets"
BLOBS = "blobs"
"""Names within a backup; most are those within a home, too."""

_LONGEST_NAME_BYTES = 255
_OF_BLOBS = re.compile("(runs|models|uploads)/.+/.+", re.DOTALL)


def is_place(path: str) -> bool:
    """Whether a path from a manifest is one that a backup has: none else is restored, and none out of the home."""
    names = path.split("/")
    if "\0" in path or any(name in {"", ".", ".."} or len(name.encode()) > _LONGEST_NAME_BYTES for name in names):
        return False
    if path in {DATABASE, HUB_DATABASE, *PLAIN_FILES}:
        return True
    return _OF_BLOBS.fullmatch("/".join(names[1:])) is not None if names[0] == BLOBS else names[:-1] == [SECRETS]


@dataclass(frozen=True)
class Places:
    """A home's database and blobs, which its settings may have put elsewhere."""

    home: Path
    database: Path
    blobs_url: str

    @classmethod
    def of(cls, home: Path, settings: Path | None = None) -> Places:
        """Those that a settings file names, the home's own when not given.

        Raises
        ------
        Conflict
            ``database_elsewhere``: the database is no SQLite file; the hint has the command that copies it.
        """
        told = load_settings(settings or home / SETTINGS)
        url = make_url(told.database or f"sqlite:///{home / DATABASE}")
        if url.get_backend_name() != "sqlite":
            shown = url._replace(drivername=url.get_backend_name(), password=None).render_as_string()
            raise Conflict(
                "database_elsewhere",
                f"The database of {home} is {shown}, which has backups of its own.",
                hint=f"Run: pg_dump --format=custom --file=atelier.dump '{shown}', and after it copy the blobs.",
            )
        return cls(home, Path(str(url.database)), told.blobs or (home / BLOBS).as_uri())

    def open_blobs(self) -> BlobStore:
        """The home's blob store."""
        return open_blobs(self.blobs_url)
