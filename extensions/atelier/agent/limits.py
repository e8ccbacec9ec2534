"""Ends a work that goes beyond its limits: of time, of silence, of memory, of the disk.

The agent does it, so that it is done as well while the service is away.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from atelier.agent.disk import DiskShare
from atelier.agent.memory import MemoryLimit
from atelier.agent.stopping import MEMORY, Stopper
from atelier.quantities import format_duration

STOP_GRACE_S = 10.0
TICK_S = 0.05
COUNT_TICK_S = 0.2


@dataclass(frozen=True)
class Limits:
    """What a work is held to; `enforce` does it.

    Parameters
    ----------
    left_s : float
        How long it may run, from now on.
    whole_s : float
        How long its run may, with all its attempts; it is told.
    silent_s : float
        How long it may tell nothing.
    signs : callable
        How much it has told; while this changes it lives.
    memory : MemoryLimit
        Its memory.
    disk : DiskShare
        Its share of the disk.
    """

    left_s: float
    whole_s: float
    silent_s: float
    signs: Callable[[], list[int]]
    memory: MemoryLimit
    disk: DiskShare

    def enforce(self, stopper: Stopper) -> None:
        """Begin to look, in threads that end with the work, or with an order to stop."""
        for look in (self._watch, self._count):
            threading.Thread(target=look, args=(stopper,), name=f"limits{look.__name__}", daemon=True).start()

    def _watch(self, stopper: Stopper) -> None:
        began, complaints = time.monotonic(), set[str]()
        sign, sign_at = self.signs(), began
        while not stopper.done.wait(TICK_S) and stopper.order is None:
            now, seen = time.monotonic(), self.signs()
            if seen != sign:
                sign, sign_at = seen, now
            if (words := _looked(self.memory.breach, complaints)) is not None:
                stopper.stop(MEMORY, 0.0, words=words)
            elif now - began > self.left_s:
                stopper.stop("deadline", STOP_GRACE_S, words=out_of_time(self.whole_s))
            elif now - sign_at > self.silent_s:
                silent = format_duration(self.silent_s)
                stopper.stop("stalled", 0.0, words=f"The run gave no sign of life for longer than {silent}.")

    def _count(self, stopper: Stopper) -> None:
        """Count the disk by itself: a slow one must not keep the others from being looked at."""
        complaints = set[str]()
        while not stopper.done.wait(COUNT_TICK_S) and stopper.order is None:
            if (words := _looked(self.disk.breach, complaints)) is not None:
                stopper.stop("disk_quota", 0.0, words=words)


def out_of_time(whole_s: float) -> str:
    """What is told of a run that has had its time."""
    return f"The run reached its time limit of {format_duration(whole_s)}."


def _looked(look: Callable[[], str | None], complaints: set[str]) -> str | None:
    """What a look finds; one that fails is told once to the agent's own log, and the other limits are kept."""
    try:
        return look()
    except Exception as problem:
        if repr(problem) not in complaints:
            complaints.add(repr(problem))
            traceback.print_exc()
        return None
