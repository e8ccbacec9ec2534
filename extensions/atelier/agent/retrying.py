"""How an agent bears a service that is away or fails: it asks again for as long as it takes.

One that fails is asked less and less often; whether one that is away is there again costs nobody anything to ask.
`Unreachable` says so, whoever raises it: nothing answers, or what answers could not do it *now* (its disk is full, its
database is locked). Every other error is an answer, and is not asked for again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from atelier.errors import Unreachable

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 8.0
AWAY_PAUSE_S = 0.25

AWAY = "service_away"
"""The code where nothing answers at all: other calls would not do better."""

PATIENCE_S = 20.0
"""So long a service fails before the user is told, and so long a run that he has ended still waits for it.

The service's settings have their own.
"""

Answer = TypeVar("Answer")


class Pauses:
    """Seconds to wait between tries: while the service fails twice as long each time, up to `LONGEST_PAUSE_S`."""

    def __init__(self) -> None:
        self._next_s, self.waited_s = FIRST_PAUSE_S, 0.0

    def next_s(self, problem: Unreachable) -> float:
        """How long to wait now, after this."""
        if problem.code == AWAY:
            pause_s = AWAY_PAUSE_S
        else:
            pause_s, self._next_s = self._next_s, min(2 * self._next_s, LONGEST_PAUSE_S)
        self.waited_s += pause_s
        return pause_s

    def reset(self) -> None:
        """It went well: begin anew."""
        self._next_s, self.waited_s = FIRST_PAUSE_S, 0.0


def until_answered(
    call: Callable[[], Answer],
    is_over: Callable[[], bool],
    *,
    is_let_go: Callable[[], bool] = lambda: False,
    tell: Callable[[Unreachable], object] = lambda problem: None,
    patience_s: float = PATIENCE_S,
) -> Answer | None:
    """What a call answers, asked for until the service takes it; None when it isn't wanted any more.

    ``tell`` gets what fails once it has failed for longer than ``patience_s``, each time.

    Raises
    ------
    AtelierError
        The service refuses it; `Unreachable` when it is let go, though the service might take it later.
    """
    pauses = Pauses()
    while not is_over():
        try:
            return call()
        except Unreachable as problem:
            if is_let_go() and problem.code != AWAY:
                raise
            if pauses.waited_s > patience_s:
                tell(problem)
            _sleep(pauses.next_s(problem), lambda: is_over() or is_let_go())
    return None


def _sleep(pause_s: float, is_cut_short: Callable[[], bool]) -> None:
    until = time.monotonic() + pause_s
    while time.monotonic() < until and not is_cut_short():
        time.sleep(0.05)
