"""Whether a run is tried again after an attempt, and how long it pauses before."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from atelier.reasons import ANY_REASON, RETRY_CHOICES, Reason
from atelier.records import AttemptState, RunSpec

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 300.0
JITTER = 0.25
"""By what part of it a pause is longer at most, so that runs that failed together don't come again together."""

FRUITFUL_S = 60.0
"""An attempt that ran so long before it gave its place away has done something."""

MOST_FRUITLESS = 50
"""So many attempts in a row that gave their places away before that are enough: the run ends."""


@dataclass(frozen=True)
class Try:
    """An attempt that has ended. ``ran_s`` is 0 when its work never began."""

    state: AttemptState
    reason: Reason | None
    ran_s: float


def pause_before_next(run_id: str, spec: RunSpec, tries: Sequence[Try]) -> float | None:
    """Seconds until a run may be tried again, or None when it has come to its end.

    Only attempts that failed or were lost cost a retry. One that gave its place away is followed by another whatever
    the spec says, until `MOST_FRUITLESS` in a row have done nothing. Pauses double with each failure, or with each
    fruitless attempt in a row, up to `LONGEST_PAUSE_S`.

    Parameters
    ----------
    run_id : str
        Spreads the pauses of runs that ended at once.
    spec : RunSpec
        Names the retries, and the reasons for them.
    tries : sequence of Try
        All attempts until now, oldest first.
    """
    last = tries[-1]
    if last.state is AttemptState.PREEMPTED:
        fruitless = fruitless_in_a_row(tries)
        return None if fruitless >= MOST_FRUITLESS else _pause(run_id, len(tries), fruitless)
    if last.state not in {AttemptState.FAILED, AttemptState.LOST} or not _is_wanted(spec, last.reason):
        return None
    failures = sum(1 for each in tries if each.state in {AttemptState.FAILED, AttemptState.LOST})
    return _pause(run_id, len(tries), failures) if failures <= spec.retries else None


def fruitless_in_a_row(tries: Sequence[Try]) -> int:
    """How many of the newest attempts gave their places away before they had done anything."""
    return sum(1 for _ in takewhile(_is_fruitless, reversed(tries)))


def _is_fruitless(each: Try) -> bool:
    return each.state is AttemptState.PREEMPTED and each.ran_s < FRUITFUL_S


def _is_wanted(spec: RunSpec, reason: Reason | None) -> bool:
    if ANY_REASON in spec.retry_on:
        return reason is None or reason in RETRY_CHOICES
    return reason is not None and reason.value in spec.retry_on


def _pause(run_id: str, attempt: int, count: int) -> float:
    usual_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** max(0, min(count, 60) - 1))
    spread = zlib.crc32(f"{run_id}/{attempt}".encode()) / 2**32
    return usual_s * (1 + JITTER * spread)
