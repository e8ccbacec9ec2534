"""Frees the disk: ended runs by the settings, uploads and layers nobody uses, a crash's rests, blobs nobody owns."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from atelier.crash_points import crash_point
from atelier.local.layers import clear_unused
from atelier.quantities import format_duration, utcnow
from atelier.records import RunState
from atelier.service.manager import RunManager
from atelier.service.models import ModelManager
from atelier.service.retention import Expiry
from atelier.service.store import Store
from atelier.service.sweeping import Sweeper
from atelier.storage import BlobStore, RunPaths
from atelier.storage.paths import UPLOADS

log = logging.getLogger("atelier.service")

UPLOAD_AGE_S = 24 * 3600.0
USABLE_AGE_S = UPLOAD_AGE_S - 3600.0
"""An upload that is older is asked for again: it must not go between the question and its use."""

LAYER_AGE_S = 30 * 24 * 3600.0
"""A layer of requirements that no run has begun with for so long is made again when one asks for it."""

PAUSE_S = 3600.0
CALM_S = 60.0
"""Before all blobs are listed: a start is not the time for it."""

CLOCK_GRACE = timedelta(minutes=1)


def is_uploaded(blobs: BlobStore, key: str) -> bool:
    """Whether an upload is there and stays for at least an hour."""
    try:
        return blobs.age_s(key) < USABLE_AGE_S
    except FileNotFoundError:
        return False


@dataclass
class Housekeeper:
    """Looks once at the start and then every `PAUSE_S`; each look may be cut off and repeated.

    ``layers`` is the folder of the requirements that runs were given.
    """

    store: Store
    blobs: BlobStore
    runs: RunManager
    expiry: Expiry
    sweeper: Sweeper
    models: ModelManager
    layers: Path

    async def run(self) -> None:
        """Go on until cancelled; what is being done then is given up."""
        try:
            await self._run()
        finally:
            for part in (self.expiry, self.sweeper):
                part.ending.set()

    async def _run(self) -> None:
        await self._apart(self.look_through)
        while True:
            await self._apart(self.expiry.apply)
            await self._apart(self.clear_removed)
            await self._apart(self.expire_uploads)
            await self._apart(self.clear_unfinished)
            await self._apart(self.clear_layers)
            await asyncio.sleep(CALM_S)
            await self._apart(self.sweeper.sweep_if_due)
            await asyncio.sleep(PAUSE_S)

    async def _apart(self, work: Callable[[], object]) -> None:
        if self.store.database.damage is not None:
            return
        try:
            await asyncio.to_thread(work)
        except Exception:
            log.exception("%s failed; the next time it tries again.", work.__name__)

    def look_through(self) -> None:
        """Look for damage where the last service did not end by itself; and at the clock."""
        if self.store.database.was_left_open:
            self.store.database.look_through()
        ahead = self.store.keeping.newest_moment() - utcnow()
        if ahead > CLOCK_GRACE:
            log.warning(
                "The clock of this computer went back: something is noted at a moment that comes in %s. "
                "Times of runs will not fit together until then.",
                format_duration(ahead.total_seconds()),
            )

    def clear_removed(self) -> None:
        """Remove, once for each removed run, what a crash or somebody who wrote meanwhile has left in its folder."""
        for run_id in self.store.removals.unswept():
            crash_point("service.house.before")
            self.blobs.delete(RunPaths(run_id).root)
            crash_point("service.house.blobs")
            self.store.removals.swept(run_id)
            crash_point("service.house.after")

    def clear_unfinished(self) -> int:
        """Remove versions of models whose publication was cut off and that nobody can finish; how many."""
        return 0 if self.sweeper.is_held() else self.models.clear_unfinished()

    def clear_layers(self) -> int:
        """Remove layers that were not used for `LAYER_AGE_S`, none that an attempt still has; how many."""
        return 0 if self.sweeper.is_held() else clear_unused(self.layers, LAYER_AGE_S)

    def expire_uploads(self) -> int:
        """Remove uploads of yesterday; how many. Runs that a crash cut off in their submit take their bundle before."""
        for run_id in self.store.runs.in_state(RunState.CREATED, utcnow()):
            try:
                self.runs.complete(self.store.runs.get(run_id))
            except FileNotFoundError:
                log.warning("The bundle of %s is not there; the reconciler gives the run up.", run_id)
        return 0 if self.sweeper.is_held() else self.blobs.expire(UPLOADS, UPLOAD_AGE_S)
