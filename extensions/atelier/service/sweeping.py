"""Removes orphaned blobs once they have been nobody's for a week, and what killed writers have left after a day.

What a look has found is noted beside the service, never in the blob store: where another database is put in place, an
older backup, say, the week begins anew for all that it does not know of.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from atelier.local.durable import put_in_place
from atelier.quantities import format_bytes, utcnow
from atelier.service.ownership import Orphan, find_orphans
from atelier.service.store import Store
from atelier.storage import BlobStore

log = logging.getLogger("atelier.service")

GRACE = timedelta(days=7)
PAUSE = timedelta(hours=20)
"""Between two looks: each lists all blobs, which takes seconds where there are many runs."""

BREATH_S = 0.05
"""Between two pages of runs: a look takes longer for it, and who waits for an answer meanwhile does not."""

UNFINISHED_AGE_S = 24 * 3600.0


class _GivenUpError(Exception):
    """The service ends, and does not wait for a look."""


@dataclass
class Sweeper:
    """Looks now and then; ``notes`` is the file of what was found, and since when."""

    store: Store
    blobs: BlobStore
    notes: Path
    ending: threading.Event = field(default_factory=threading.Event)
    """Set when the service ends: a look is given up."""
    is_held: Callable[[], bool] = lambda: False
    """Whether nothing may be removed by its age: the clock is not to be trusted."""

    def sweep_if_due(self) -> int:
        """Look, unless the last look was not long ago, or it is held back; how many orphans were removed."""
        if self.is_held():
            return 0
        looked_at, _ = self._noted()
        if looked_at is not None and timedelta(0) <= utcnow() - looked_at < PAUSE:
            return 0
        try:
            return self.sweep()
        except _GivenUpError:
            return 0

    def sweep(self) -> int:
        """Look at all blobs, remove what was nobody's at looks for `GRACE`, and note the rest; how many went."""
        now = utcnow()
        _, since = self._noted()
        old: list[Orphan] = []
        kept: dict[str, datetime] = {}
        for orphan in find_orphans(self.blobs, self.store.owning, between_pages=self._breathe):
            first_seen = min(since.get(orphan.key, now), now)
            if now - first_seen > GRACE:
                old.append(orphan)
            else:
                kept[orphan.key] = first_seen
        for orphan in old:
            self.blobs.delete(orphan.key)
        self._tell(old, len(kept) - len(since.keys() & kept.keys()))
        for kind in ("runs", "models"):
            self.blobs.clear_unfinished(kind, UNFINISHED_AGE_S)
        self._note(now, kept)
        return len(old)

    def _breathe(self) -> None:
        if self.ending.wait(BREATH_S):
            raise _GivenUpError

    def _tell(self, removed: list[Orphan], new: int) -> None:
        if removed:
            size, first = format_bytes(sum(orphan.size_bytes for orphan in removed)), removed[0].key
            log.info("Removed %s blobs (%s) that were nobody's for a week: %s …", len(removed), size, first)
        if new:
            log.info("Found %s blobs that are nobody's; they go in %s days.", new, GRACE.days)

    def _noted(self) -> tuple[datetime | None, dict[str, datetime]]:
        """When the last look was, and since when each orphan is known; nothing where the file is not there or torn."""
        try:
            told = json.loads(self.notes.read_text(encoding="utf-8"))
            found = {str(key): datetime.fromisoformat(at) for key, at in told["found"].items()}
            return datetime.fromisoformat(told["looked_at"]), found
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None, {}

    def _note(self, looked_at: datetime, found: dict[str, datetime]) -> None:
        told = {"looked_at": looked_at.isoformat(), "found": {key: at.isoformat() for key, at in found.items()}}
        part = self.notes.with_name(f".{self.notes.name}.part")
        with part.open("w", encoding="utf-8") as stream:
            json.dump(told, stream)
            stream.flush()
            os.fsync(stream.fileno())
        put_in_place(part, self.notes)
