"""Steps of a pass, each for one run: one that hangs holds up no other run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger("atelier.service")

STEP_S = 20.0


@dataclass
class Steps:
    """Takes one step at a time for each run, and waits at most ``patience_s`` for it.

    What is not done by then is left behind and logged. It goes on;
    until it is done no other one is taken for its run.
    """

    patience_s: float = STEP_S
    _left_behind: set[str] = field(default_factory=set)

    async def take(self, run_id: str, work: Coroutine[Any, Any, None], what: str) -> None:
        """Take a step, unless one for this run was left behind; it must not raise."""
        if run_id in self._left_behind:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        try:
            await asyncio.wait({task}, timeout=self.patience_s)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not task.done():
            log.error("%s is not done after %g s; the other runs go on without it.", what, self.patience_s)
            self._left_behind.add(run_id)
            task.add_done_callback(lambda done: self._left_behind.discard(run_id))
