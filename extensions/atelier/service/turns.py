"""Turns at heavy work: one piece of each owner's at a time, and few in all; who waits for one holds no thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from weakref import WeakValueDictionary


class Turns:
    """Lets at most ``most`` pieces of work go on at once, and of those of one owner one."""

    def __init__(self, most: int) -> None:
        self._all = asyncio.Semaphore(most)
        self._own: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def take(self, owner: str) -> AsyncIterator[None]:
        """Wait for an owner's turn, and hold it meanwhile."""
        own = self._own.setdefault(owner, asyncio.Lock())  # goes with the last who waits for it
        async with own, self._all:
            yield
