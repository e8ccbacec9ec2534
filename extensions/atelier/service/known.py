"""What is known of the queue is not asked for again while neither it nor what it waits for has changed."""

from __future__ import annotations

import time
from dataclasses import dataclass

from atelier.quantities import utcnow
from atelier.service.store import Capacity, Stir

LOOK_AGAIN_S = 15.0
"""A run that comes to have waited for too long changes nothing that is counted: it goes first so much later."""


@dataclass
class Known:
    """Remembers at which count of changes an answer of the queue was had."""

    _stir: Stir | None = None
    _capacity: Capacity | None = None
    _until: float = 0.0

    def stands(self, stir: Stir, capacity: Capacity | None = None) -> bool:
        """Whether the answer would be the same now."""
        if self._stir is None or time.monotonic() > self._until or self._stir.is_over(utcnow()):
            return False
        return (self._stir.count, self._capacity) == (stir.count, capacity)

    def note(self, stir: Stir, capacity: Capacity | None = None) -> None:
        """An answer was had; ``stir`` and ``capacity`` were read before it."""
        self._stir, self._capacity, self._until = stir, capacity, time.monotonic() + LOOK_AGAIN_S
