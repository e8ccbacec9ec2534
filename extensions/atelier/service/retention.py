"""Removes ended runs by their age and by the bytes of all, as the settings say: none that somebody keeps."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from atelier.errors import NotFound
from atelier.quantities import format_bytes, format_duration, utcnow
from atelier.service.manager import RunManager
from atelier.service.store import Removable, Store
from atelier.settings import Retention
from atelier.storage import BlobStore, RunPaths

log = logging.getLogger("atelier.service")

MEASURED_AT_ONCE = 500


@dataclass(frozen=True)
class Due:
    """A run that is to go, and the words that say why."""

    run: Removable
    why: str


def due(runs: Iterable[Removable], rule: Retention, *, kept_bytes: Mapping[str, int], now: datetime) -> Iterator[Due]:
    """Which of the runs that may go are to go now: first those that are too old, then those of who has too much.

    Each owner has a share of the size (`share_of_each`): who stays within it loses nothing, whatever others keep. What
    is pinned, or has made a model, takes nothing of it: pins of one would else remove the runs of another.

    Parameters
    ----------
    runs : iterable of Removable
        Those that may go, the one that ended first to begin with.
    rule : Retention
        The settings.
    kept_bytes : mapping of str to int
        For each owner, bytes of the ended runs that nobody keeps for good, also of the newest, which may not go yet.
    now : datetime
        The moment, aware.
    """
    left, young = dict(kept_bytes), []
    for run in runs:
        if rule.age is not None and (now - run.ended_at).total_seconds() > rule.age:
            left[run.owner] = left.get(run.owner, 0) - (run.kept_bytes or 0)
            yield Due(run, f"it ended more than {format_duration(rule.age)} ago")
        else:
            young.append(run)
    share = math.inf if rule.size is None else share_of_each(left.values(), rule.size)
    for run in young:
        has = left.get(run.owner, 0)
        if has > share:
            left[run.owner] = has - (run.kept_bytes or 0)
            words = f"{format_bytes(has)}, more than the share of {format_bytes(int(share))} that each user has"
            yield Due(run, f"its owner's ended runs have {words}")


def share_of_each(kept_bytes: Iterable[int], size: int) -> float:
    """The most bytes that each owner may have, so that all together have no more than ``size``.

    Equal shares, where what some leave of theirs is divided among the others; infinite when all have room.
    """
    left, taken = size, sorted(kept_bytes)
    for place, each in enumerate(taken):
        equal = left / (len(taken) - place)
        if each > equal:
            return equal
        left -= each
    return math.inf


@dataclass
class Expiry:
    """Applies the settings to what the store has. ``tell`` says that an owner's runs have changed."""

    store: Store
    blobs: BlobStore
    runs: RunManager
    rule: Retention
    tell: Callable[[str], None]
    ending: threading.Event = field(default_factory=threading.Event)
    """Set when the service ends: what is left to do is done by the next one."""
    is_held: Callable[[], bool] = lambda: False
    """Whether nothing may be removed by its age: the clock is not to be trusted. What is too much goes all the same."""

    def apply(self) -> int:
        """Remove what is due, as its owner would; how many. Cut off and done again, it goes on."""
        rule = self.rule.model_copy(update={"age": None}) if self.is_held() else self.rule
        if rule.age is None and rule.size is None:
            return 0
        if rule.size is not None:
            self.measure()
        keeping = self.store.keeping
        gone = due(keeping.removable(rule.keep), rule, kept_bytes=keeping.by_owner(), now=utcnow())
        return sum(self._remove(each) for each in list(gone) if not self.ending.is_set())

    def measure(self) -> None:
        """Count the bytes of ended runs, each once: nothing of them changes any more."""
        while not self.ending.is_set() and (ids := self.store.keeping.unmeasured(MEASURED_AT_ONCE)):
            found = {run_id: sum(self.blobs.sizes(RunPaths(run_id).root).values()) for run_id in ids}
            self.store.keeping.measured(found)

    def _remove(self, each: Due) -> bool:
        try:
            run = self.store.runs.get(each.run.id)
        except NotFound:  # its owner was faster
            return False
        if not self.runs.release(run):
            return False
        ended = f"{run.ended_at:%Y-%m-%d %H:%M} UTC" if run.ended_at else "at an unknown time"
        log.info("Retention removed %s of %s (%s, ended %s): %s.", run.id, run.owner, run.state, ended, each.why)
        self.tell(run.owner)
        return True
