"""How long agents have said nothing, by this process's own clock, which no change of the computer's time moves."""

from __future__ import annotations

import time
from collections.abc import Collection

from atelier.service.backends import Key

LONGEST_STEP_S = 5.0
"""What is beyond this between two looks was spent frozen or suspended: nobody could be heard, and it doesn't count."""


class Silence:
    """Counts each live attempt's silence from its last word on, or from its first sight here.

    So patience begins anew with each start of the service: while it was away, nobody could speak to it. A word counts
    also when it could not be noted (the disk is full). `heard` may be called by any thread.
    """

    def __init__(self) -> None:
        self._looked_at = time.monotonic()
        self.now_s = 0.0
        """The time of this process, at the last look; it was never set, and stood still where the process did."""
        self._heard: dict[Key, float] = {}

    def heard(self, key: Key) -> None:
        """An attempt's agent has said something."""
        self._heard[key] = self.now_s

    def look(self, live: Collection[Key]) -> None:
        """Go on with the time, for these attempts; the others are forgotten."""
        now = time.monotonic()
        self.now_s += min(now - self._looked_at, LONGEST_STEP_S)
        self._looked_at = now
        self._heard = {key: self._heard.get(key, self.now_s) for key in live}

    def of(self, key: Key) -> float:
        """Seconds for which an attempt has said nothing, at the last look."""
        return self.now_s - self._heard.get(key, self.now_s)
