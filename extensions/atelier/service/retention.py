"""Removes ended runs by their age and by the bytes of all, as the settings say: none that somebody keeps."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
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


def due(runs: Iterable[Removable], rule: Retention, *, kept_bytes: int, now: datetime) -> Iterator[Due]:
    """Which of the runs that may go are to go now.

    Parameters
    ----------
    runs : iterable of Removable
        Those that may go, the one that ended first to begin with.
    rule : Retention
        The settings.
    kept_bytes : int
        Bytes of all ended runs, also of those that may not go.
    now : datetime
        The moment, aware.
    """
    for run in runs:
        if rule.age is not None and (now - run.ended_at).total_seconds() > rule.age:
            why = f"it ended more than {format_duration(rule.age)} ago"
        elif rule.size is not None and kept_bytes > rule.size:
            why = f"ended runs have {format_bytes(kept_bytes)} together, more than {format_bytes(rule.size)}"
        else:
            return
        kept_bytes -= run.kept_bytes or 0
        yield Due(run, why)


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
        _, kept_bytes = self.store.keeping.total()
        gone = due(self.store.keeping.removable(rule.keep), rule, kept_bytes=kept_bytes, now=utcnow())
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
