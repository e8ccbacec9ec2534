"""Keeps an attempt's writes and its end apart: who writes for it, or ends it, holds its run's lock meanwhile."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any
from weakref import WeakValueDictionary


class Fence:
    """A lock for each run that somebody holds.

    What is looked at under it, that the attempt lives, is still true when what follows is written. One service is
    active at a time, so that a lock within its process is enough. Whoever holds it may take it again.
    """

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, Any] = WeakValueDictionary()
        self._guard = threading.Lock()

    @contextlib.contextmanager
    def hold(self, run_id: str) -> Iterator[None]:
        """Wait for a run's lock, and hold it."""
        with self._guard:
            lock = self._locks.setdefault(run_id, threading.RLock())  # goes with the last who waits for it
        with lock:
            yield
