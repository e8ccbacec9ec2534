"""Frees the disk: uploads that nobody came back for, and what a crash left of removed runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from atelier.quantities import utcnow
from atelier.records import RunState
from atelier.service.manager import RunManager
from atelier.service.store import Store
from atelier.storage import BlobStore, RunPaths
from atelier.storage.paths import UPLOADS

log = logging.getLogger("atelier.service")

UPLOAD_AGE_S = 24 * 3600.0
USABLE_AGE_S = UPLOAD_AGE_S - 3600.0
"""An upload that is older is asked for again: it must not go between the question and its use."""

PAUSE_S = 3600.0


def is_uploaded(blobs: BlobStore, key: str) -> bool:
    """Whether an upload is there and stays for at least an hour."""
    try:
        return blobs.age_s(key) < USABLE_AGE_S
    except FileNotFoundError:
        return False


@dataclass
class Housekeeper:
    """Looks once at the start and then every `PAUSE_S`; each look may be cut off and repeated."""

    store: Store
    blobs: BlobStore
    runs: RunManager

    async def run(self) -> None:
        """Go on until cancelled."""
        await self._apart(self.clear_removed)
        while True:
            await self._apart(self.expire_uploads)
            await asyncio.sleep(PAUSE_S)

    async def _apart(self, work: Callable[[], object]) -> None:
        try:
            await asyncio.to_thread(work)
        except Exception:
            log.exception("%s failed; the next time it tries again.", work.__name__)

    def clear_removed(self) -> None:
        """Remove what runs that are marked as removed still have: a crash came between their row and their blobs."""
        for run_id in self.store.removals.removed():
            self.store.removals.forget(run_id)
            self.blobs.delete(RunPaths(run_id).root)

    def expire_uploads(self) -> int:
        """Remove uploads of yesterday; how many. Runs that a crash cut off in their submit take their bundle before."""
        for run_id in self.store.runs.in_state(RunState.CREATED, utcnow()):
            try:
                self.runs.complete(self.store.runs.get(run_id))
            except FileNotFoundError:
                log.warning("The bundle of %s is not there; the reconciler gives the run up.", run_id)
        return self.blobs.expire(UPLOADS, UPLOAD_AGE_S)
