"""Refuses a new database over a blob store that holds what another one knew: it was lost, or is the wrong one."""

from __future__ import annotations

from sqlalchemy import make_url

from atelier.errors import Conflict
from atelier.storage import BlobStore

_KEPT = ("runs", "models")


def refuse_orphaned(blobs: BlobStore, url: str) -> None:
    """Look for records before the tables of a database are made.

    Raises
    ------
    Conflict
        ``database_empty``: the numbers of new runs and models would meet the old ones'.
    """
    for kind in _KEPT:
        key = next(iter(blobs.keys(kind)), None)
        if key is not None:
            database = make_url(url).render_as_string(hide_password=True).removeprefix("sqlite:///")
            raise Conflict(
                "database_empty",
                f"The database {database} is new or empty, but the blob store holds {kind} of another one ({key} …).",
                hint="Put a backup in its place: 'atelier restore FOLDER --replace'. To begin with nothing, move "
                "'runs' and 'models' out of the blob store.",
            )
