"""Holds back what is removed by its age for a day after the computer's clock has jumped ahead.

The time of day is compared with a clock that nobody can set and that goes on while the computer sleeps. Of a computer
that was started anew only the time of day is known: it may have been off for a few days.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from atelier.local.durable import put_in_place
from atelier.quantities import format_duration

log = logging.getLogger("atelier.service")

LEAP_S = 5.0
"""Clocks that are kept in step by a program are moved by less at a time."""

JUMP_S = 3600.0
OFF_S = 3 * 24 * 3600.0
"""A computer that was off for longer is taken for one whose clock is wrong: all that costs is the wait."""

HOLD_S = 24 * 3600.0
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Reading:
    """The time of day, in seconds since 1970, and seconds since the boot of that id."""

    day_s: float
    boot_s: float
    boot: str


@dataclass(frozen=True)
class Note(Reading):
    """A reading, for how long nothing is removed from then on, and how far ahead the clock is by what it has jumped."""

    hold_s: float = 0.0
    ahead_s: float = 0.0


def read_clocks() -> Reading:
    """The clocks of this computer, now."""
    return Reading(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), _BOOT.read_text().strip())


def after(before: Note, now: Reading) -> Note:
    """What is to be noted now: a jump ahead begins to hold back, and one that takes it back ends that."""
    same = now.boot == before.boot
    passed_s = max(0.0, now.boot_s - before.boot_s) if same else 0.0
    jump_s = now.day_s - before.day_s - passed_s
    hold_s = HOLD_S if jump_s > (JUMP_S if same else OFF_S) else max(0.0, before.hold_s - passed_s)
    ahead_s = jump_s + (before.ahead_s if before.hold_s else 0.0)
    told = now.day_s, now.boot_s, now.boot
    return Note(*told, hold_s, ahead_s) if hold_s and ahead_s > JUMP_S else Note(*told)


class Leaps:
    """Tells by how much the computer's clock was set, to one who asks again and again."""

    def __init__(self, clocks: Callable[[], Reading] = read_clocks) -> None:
        self._clocks, self._last = clocks, clocks()

    def leap_s(self) -> float:
        """By how many seconds the time of day went on otherwise than by itself since the last question; mostly 0."""
        before, self._last = self._last, self._clocks()
        leap_s = (self._last.day_s - before.day_s) - (self._last.boot_s - before.boot_s)
        return leap_s if abs(leap_s) > LEAP_S else 0.0


@dataclass
class Timekeeper:
    """Looks at the clocks when it is asked; ``path`` is the file of its notes, from which the next service goes on."""

    path: Path
    clocks: Callable[[], Reading] = read_clocks

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._last: Note | None = None

    def is_held(self) -> bool:
        """Whether nothing may be removed by its age now; asked before each removal, by any thread."""
        with self._lock:
            now = self.clocks()
            before = self._last or noted(self.path) or Note(now.day_s, now.boot_s, now.boot)
            self._last = after(before, now)
            if self._last.hold_s > before.hold_s:
                log.warning("%s Nothing is removed by its age for %s.", *words(self._last))
            elif before.hold_s and not self._last.hold_s:
                log.info("What is removed by its age is not held back any more.")
            self._note(self._last)
            return self._last.hold_s > 0

    def _note(self, note: Note) -> None:
        part = self.path.with_name(f".{self.path.name}.part")
        try:
            part.write_text(json.dumps(asdict(note)), encoding="utf-8")
            put_in_place(part, self.path)
        except OSError as problem:
            log.warning("The time could not be noted in %s: %s", self.path, problem)


def noted(path: Path) -> Note | None:
    """What a service noted last; None where there is nothing, or nothing that makes sense."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        numbers = [float(told[name]) for name in ("day_s", "boot_s", "hold_s", "ahead_s")]
        return Note(numbers[0], numbers[1], str(told["boot"]), min(numbers[2], HOLD_S), numbers[3])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def words(note: Note) -> tuple[str, str]:
    """A sentence on a jump, and for how long it is waited."""
    return f"The computer's clock jumped ahead by {format_duration(note.ahead_s)}.", format_duration(note.hold_s)
