"""What a listing says of one name in a folder, and a page of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from atelier.data.kinds import kind_of_name

Kind = Literal["folder", "file", "link"]


@dataclass(frozen=True)
class Entry:
    """One name in a folder.

    Parameters
    ----------
    name : str
        As it is; where it is not UTF-8, with U+FFFD in place of the wrong bytes.
    kind : {"folder", "file", "link"}
        What lies there; a link is never hidden behind what it leads to.
    size_bytes : int or None
        Size of a file, or of the file that a link leads to.
    modified_s : float or None
        Epoch seconds of the last change.
    link : str or None
        What a link leads to: ``folder``, ``file``, ``outside`` (of the root: not followed) or ``broken``.
    problem : str
        Why the entry can't be opened, as the rest of a sentence; empty when it can.
    """

    name: str
    kind: Kind
    size_bytes: int | None = None
    modified_s: float | None = None
    link: str | None = None
    problem: str = ""

    def as_json(self) -> dict[str, Any]:
        """The entry as a listing carries it."""
        is_folder = "folder" in (self.kind, self.link)
        item: dict[str, Any] = {
            "name": self.name,
            "kind": self.kind,
            "size_bytes": self.size_bytes,
            "modified_at": iso_moment(self.modified_s),
            "type": "folder" if is_folder else kind_of_name(self.name),
        }
        if self.link:
            item["link"] = self.link
        if self.problem:
            item["problem"] = self.problem
        return item


@dataclass(frozen=True)
class Listing:
    """One page of a folder: folders first, then by name without regard to case. ``next`` is None on the last page."""

    entries: tuple[Entry, ...]
    next: str | None = None
    total: int | None = None


def iso_moment(epoch_s: float | None) -> str | None:
    """ISO 8601 with milliseconds and ``Z``; None stays None, and so does a time that no calendar has."""
    if epoch_s is None:
        return None
    try:
        moment = datetime.fromtimestamp(epoch_s, UTC)
    except (OverflowError, ValueError, OSError):
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
