"""Brings in what dead agents left: by a few tries with pauses between them, then what can be read of it.

What could not be brought in is set aside, never removed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from atelier.crash_points import crash_point
from atelier.errors import NotFound
from atelier.records import AttemptState, Reason
from atelier.service.attempts import AttemptManager, FinishReport
from atelier.service.backends import Backend, Key
from atelier.service.store import Outcome
from atelier.storage import RunPaths

TRIES = (0.0, 0.15, 1.0)
"""The pause before each try to bring in what a dead agent left, as a part of ``limits.patience``.

A service that fails costs none: an agent waits for it.
"""

ASIDE_S = 30 * 24 * 3600.0
TIDY_S = 600.0

STOPPED: Mapping[str, Outcome] = {
    "cancel": Outcome(AttemptState.CANCELLED, Reason.CANCELLED_BY_USER),
    "deadline": Outcome(AttemptState.TIMED_OUT, Reason.DEADLINE),
    "stalled": Outcome(AttemptState.FAILED, Reason.STALLED),
}
"""The end of an attempt that was told to stop and said nothing itself."""


@dataclass
class Recovery:
    """What the reconciler does about attempts whose agents are dead."""

    backend: Backend
    attempts: AttemptManager
    is_held: Callable[[], bool] = lambda: False
    """Whether nothing may be removed by its age: the clock is not to be trusted."""
    _tidied_at: float = float("-inf")
    _died: dict[Key, tuple[int, float]] = field(default_factory=dict)

    async def tries(self, key: Key, tried: int) -> bool:
        """Try once more to bring in, or wait for the time to; False when it was tried often enough."""
        if tried >= len(TRIES):
            self._died.pop(key, None)
            return False
        count, died_at = self._died.get(key, (-1, 0.0))
        if count != tried:
            died_at = time.monotonic()
            self._died[key] = (tried, died_at)
        if time.monotonic() - died_at >= TRIES[tried] * self.attempts.limits.patience:
            crash_point("service.recover.before")
            await self.backend.recover(key)
            crash_point("service.recover.spawned")
            await asyncio.to_thread(self.attempts.store.runs.recovering, *key)
            crash_point("service.recover.after")
        return True

    async def end_of(self, key: Key, stop: str | None, message: str) -> Outcome:
        """How an attempt ended that nobody brings in: as its agent wrote, as it was told to stop, or lost.

        What is still on its machine is set aside, and the run's record tells where.
        """
        outcome = await self._written(key) or STOPPED.get(stop or "")
        crash_point("service.aside.before")
        place = await self.backend.set_aside(key)
        crash_point("service.aside.after")
        if place is not None:
            message = f"The run's supervising process died. What could not be brought in of what it left is in {place}."
            await self._warn(key, message)
        return outcome or Outcome(AttemptState.LOST, Reason.AGENT_LOST, message)

    async def tidy(self) -> None:
        """Remove what was set aside and belongs to no run any more, or was not fetched for long; looks now and then."""
        now = time.monotonic()
        if now - self._tidied_at >= TIDY_S:
            self._tidied_at = now
            self._died = {key: last for key, last in self._died.items() if now - last[1] < TIDY_S}
            if not await asyncio.to_thread(self.is_held):
                await self.backend.clear_aside(ASIDE_S, self._is_known)

    def _is_known(self, run_id: str) -> bool:
        try:
            self.attempts.store.runs.get(run_id)
        except NotFound:
            return False
        return True

    async def _written(self, key: Key) -> Outcome | None:
        """The end that the agent wrote to the disk before it died, kept where those that were told of are."""
        told = await self.backend.result(key)
        try:
            report = FinishReport.model_validate_json(told or b"")
        except ValidationError:
            return None
        if not report.state.is_final:
            return None
        data = report.model_dump_json(indent=1).encode()
        await asyncio.to_thread(self.attempts.blobs.write, RunPaths(key.run_id).result(key.n), data)
        return report.as_outcome()

    async def _warn(self, key: Key, text: str) -> None:
        heartbeat = self.attempts.store.streams.heartbeat
        await asyncio.to_thread(lambda: heartbeat(*key, progress=None, usage={}, warnings=[text]))
