"""How long attempts that were told to stop may still go on, by a clock that nobody can set."""

from __future__ import annotations

from collections.abc import Collection
from math import inf

from atelier.service.backends import Key
from atelier.service.silence import Silence


class Stops:
    """Counts from the first look at an order on: anew with each start of the service, which nobody could hear before.

    Parameters
    ----------
    silence : Silence
        Has the time.
    """

    def __init__(self, silence: Silence) -> None:
        self._silence = silence
        self._until_s: dict[Key, float] = {}

    def look(self, live: Collection[Key]) -> None:
        """Keep these attempts; the others are forgotten."""
        self._until_s = {key: self._until_s[key] for key in live if key in self._until_s}

    def is_over(self, key: Key, grace_s: float) -> bool:
        """Whether an attempt that has been told to stop within ``grace_s`` should have; a shorter time counts anew."""
        now_s = self._silence.now_s
        until_s = self._until_s[key] = min(self._until_s.get(key, inf), now_s + grace_s)
        return now_s > until_s
