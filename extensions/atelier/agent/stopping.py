"""Stops a work as it is told: first by ``should_stop()``, then by a signal, then for good."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from atelier.agent.family import Family
from atelier.agent.place import Place
from atelier.agent.shipper import write_control
from atelier.agent.works import Work

POLLS = "polls-stop"
"""The recorder leaves this file in the spool when the code asks ``should_stop()``; such code may end by itself."""

MEMORY = "memory"
"""The order after which there is no time at all: what asks for more memory would get it."""

INTERRUPT_GRACE_S = 0.5
"""What code gets after the signal, at least; a handler of its own may use all the time that is left."""

LAST_WORD_S = 1.0
"""How long an order may still come when SIGTERM has ended the work: a computer that goes down tells all at once."""


class Stopper:
    """Holds the order to stop, the first one that comes, and carries it out on the work there is.

    Orders may come again, with less time left: when none is left the work is ended for good.
    """

    def __init__(self, place: Place, family: Family) -> None:
        self.order: str | None = None
        self.words = ""
        """What led to it, in a sentence; empty where the order says it all."""
        self.done = threading.Event()
        self.is_late = threading.Event()
        """The first order came when the work had ended by itself, and leaves no time for what is still being done."""
        self.is_now = False
        """The first order was to cancel, and left no time."""
        self._place, self._family = place, family
        self._work: Work | None = None
        self._deadline = float("inf")
        self._lock = threading.RLock()  # a signal's handler may come while its thread holds it

    def begin(self, work: Work) -> bool:
        """The work that is to be stopped from now on; False when the order was faster."""
        with self._lock:
            self._work = work
            return self.order is None

    def await_order(self) -> None:
        """Wait for the order that may be under way; in the main thread, for it comes by a signal."""
        deadline = time.monotonic() + LAST_WORD_S
        while self.order is None and time.monotonic() < deadline:
            time.sleep(0.02)

    def stop(self, order: str, grace_s: float, *, words: str = "") -> None:
        """Stop the work within ``grace_s``; nothing when it has ended."""
        if self.done.is_set():
            if self.order is None and grace_s <= 0:
                self.is_late.set()
            return
        with self._lock:
            is_first = self.order is None
            if is_first:
                self.words, self.order = words, order
                self.is_now = order == "cancel" and grace_s <= 0
            self._deadline = min(self._deadline, time.monotonic() + max(0.0, grace_s))
        if is_first:
            try:
                write_control(self._place, order)
            except OSError as problem:  # a full disk; the signal comes all the same
                print(f"The code can't be told to stop: {problem}", flush=True)
            threading.Thread(target=self._carry_out, name="stop", daemon=True).start()

    def _carry_out(self) -> None:
        work = self._work
        if work is None or self.order == MEMORY:
            self._family.end()  # without a work it is an installer; the work itself is not begun any more
            return
        if (self._place.spool / POLLS).exists() and self._ends(lambda: self._deadline):
            return
        work.interrupt()
        least = time.monotonic() + INTERRUPT_GRACE_S
        if not self._ends(lambda: max(least, self._deadline)):
            work.kill()
            self._family.end()

    def _ends(self, deadline: Callable[[], float]) -> bool:
        """Whether the work ends before a moment that may still come nearer."""
        while time.monotonic() < deadline():
            if self.done.wait(0.05):
                return True
        return self.done.is_set()
