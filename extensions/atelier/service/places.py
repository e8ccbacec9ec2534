"""Tells those who watch a waiting run when its place in the queue is another, though nothing of its own changed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from atelier.service.feed import Feed
from atelier.service.known import Known
from atelier.service.store import Store

MOST_PLACES = 100


@dataclass
class Places:
    """Compares the first `MOST_PLACES` of the queue with what was told of them.

    What was told is kept in memory only: a service that starts tells them once too often. A run farther behind has its
    place when it is read, and is told of it when it comes among the first.
    """

    store: Store
    feed: Feed
    _told: dict[str, int] = field(default_factory=dict)
    _known: Known = field(default_factory=Known)

    async def tell_places(self) -> None:
        """Mark runs whose place is another as changed, and wake who watches them."""
        stir = await asyncio.to_thread(self.store.queue.stirred)
        if self._known.stands(stir):
            return
        waiting = await asyncio.to_thread(self.store.queue.first, MOST_PLACES)
        places = {run_id: place for place, (run_id, _) in enumerate(waiting, 1)}
        moved = [(run_id, owner) for run_id, owner in waiting if self._told.get(run_id) != places[run_id]]
        if moved:
            await asyncio.to_thread(self.store.queue.moved, [run_id for run_id, _ in moved])
            for owner in {owner for _, owner in moved}:
                self.feed.touch(owner)
        self._told = places
        self._known.note(stir)
