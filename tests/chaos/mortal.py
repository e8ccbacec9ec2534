"""A run service that may die at any moment, and is started again; what became of its runs; a table of it all."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from atelier.client.address import Address, live_address
from atelier.client.transport import Transport
from atelier.crash_points import ENVIRONMENT
from atelier.errors import InternalError, Unreachable
from atelier.records import Run
from atelier.service.ownership import find_orphans
from atelier.service.store.owning import OwningStore
from atelier.testing.invariants import Broken, blobs_have_owners, broken
from atelier.testing.snapshot import Snapshot
from tests.chaos.starter import the_starter
from tests.chaos.works import evidence
from tests.service_driver import SETTINGS, Service, service_over

FULL = os.environ.get("ATELIER_CHAOS") == "full"
"""Whether each place has a run of its own, and outages last as long as the page says; else the short form is run."""

GPUS = "GPU-11111111-aaaa"
ROWS = "ATELIER_CHAOS_ROWS"
"""Names the file that takes the rows of the table, one JSON document a line."""

PATIENCE_S = 150
"""A service that dies at many places starts as often, and each start takes long on a busy machine."""

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Row:
    """A fault and what became of the runs that it met."""

    fault: str
    state: str
    reason: str
    attempts: int
    whole: str
    took_s: float

    @classmethod
    def of(cls, run: Run, fault: str, whole: str, began: float) -> Row:
        """The row of a run; ``began`` is when the fault was made, by the monotonic clock."""
        return cls(fault, run.state, run.reason or "", len(run.attempts), whole, time.monotonic() - began)

    def keep(self) -> None:
        """Add it to the table that is being made, if one is."""
        if place := os.environ.get(ROWS):
            with open(place, "a") as rows:
                rows.write(json.dumps(asdict(self)) + "\n")


@dataclass
class Mortal:
    """A service over a home of its own, whose processes die where `order` says.

    Parameters
    ----------
    service : Service
        The service.
    orders : Path
        The file that `ATELIER_CRASH_AT` names.
    """

    service: Service
    orders: Path
    deaths: int = 0
    began: float = field(default_factory=time.monotonic)

    def order(self, *points: str) -> None:
        """Have processes die at these places, one after the other; the clock of the next row begins."""
        self.began = time.monotonic()
        part = self.orders.with_suffix(".part")
        part.write_text("".join(f"{point}\n" for point in points))
        part.rename(self.orders)

    @property
    def left(self) -> list[str]:
        """Places that nobody has come to yet."""
        with contextlib.suppress(FileNotFoundError):
            return self.orders.read_text().split()
        return []

    def until(self, ask: Callable[[], Answer], what: str, *, timeout_s: float = PATIENCE_S) -> Answer:
        """Ask again and again; a service that has died meanwhile is started anew."""
        deadline, problem = time.monotonic() + timeout_s, None
        while time.monotonic() < deadline:
            self.revive()
            try:
                if answer := ask():
                    return answer
            except (Unreachable, InternalError, httpx.HTTPError, OSError) as met:
                problem = met
            time.sleep(0.05)
        words = f"waited {timeout_s} s for {what}; {problem!r}; nobody came to {self.left}"
        raise AssertionError(f"{words}; the service said:\n{self.tail}")

    @property
    def tail(self) -> str:
        return "\n".join(self.service.service_log.splitlines()[-30:])

    def revive(self) -> None:
        """Start the service anew until it lives."""
        while self.service.process is None or self.service.process.poll() is not None:
            self.deaths += 1
            assert self.deaths < 500, self.tail
            self.service.process = process = self.service.spawn(*self.service.options)
            deadline = time.monotonic() + 30
            while process.poll() is None and live_address(self.service.home) is None:
                assert time.monotonic() < deadline, f"the service did not start:\n{self.tail}"
                time.sleep(0.02)

    def found(self) -> Address:
        """Where the service is, for a client that met none: it lives again, as under a supervisor."""
        self.revive()
        return self.service.address

    def submit(self, work: Path, params: Mapping[str, Any] | None = None, *, key: str, **spec: Any) -> str:
        """Submit as a client does that asks again with its key when the service dies; the run's id."""
        return self.until(lambda: self.service.submit(work, params, key=key, **spec), f"the submit {key}")

    def end(self, run_id: str, *, timeout_s: float = PATIENCE_S) -> Run:
        """The record of a run that has ended."""
        self.until(lambda: self.service.run(run_id).state.is_final, f"the end of {run_id}", timeout_s=timeout_s)
        return self.until(lambda: self.service.run(run_id), f"the record of {run_id}")

    def check(
        self, run_id: str, folder: Path, fault: str, *, keeps_row: bool = True, unheard: Collection[int] = ()
    ) -> Run:
        """What a run of one of our works has left is whole; its row goes into the table.

        ``unheard`` are attempts that were ended before their agents could speak.
        """
        run = self.end(run_id)
        found = self.until(lambda: evidence(self.service, run_id, folder), f"what {run_id} has left")
        assert not (faults := list(found.faults(unheard))), (
            f"{fault}: {faults}; {run.state} {run.reason} {run.warnings}"
        )
        values = sum(map(len, found.points))
        whole = f"{len(found.logs)} logs, {values} values, {len(found.files)} files, {found.models} models"
        if keeps_row:
            Row.of(run, fault, whole, self.began).keep()
        return run

    def settle(self, *, timeout_s: float = PATIENCE_S) -> None:
        """Everything that must be true of the home comes to be true by itself, and soon.

        But for blobs that nobody owns: the service removes them after a week.
        """
        newest: list[Broken] = []

        def is_well() -> bool:
            nonlocal newest
            newest = [one for one in broken(self.service.home) if one.invariant != blobs_have_owners.__name__]
            return not newest

        try:
            self.until(is_well, "the invariants to hold", timeout_s=timeout_s)
        except AssertionError as problem:
            raise AssertionError(f"{newest}\n{problem}") from problem

    def sweep(self) -> int:
        """Remove what the service would remove after a week; nothing is nobody's then. How many there were."""
        snapshot = Snapshot.of(self.service.home)
        orphans = list(find_orphans(snapshot.blobs, OwningStore(snapshot.database)))
        for orphan in orphans:
            snapshot.blobs.delete(orphan.key)
        snapshot.database.close()
        assert broken(self.service.home) == []
        return len(orphans)


@contextmanager
def mortal_over(settings: str = SETTINGS, **more: str) -> Iterator[Mortal]:
    """A service with one GPU, in whose home everything is as it must be at the end."""
    starter = None if "LD_PRELOAD" in more else the_starter()
    with service_over(settings=settings, more={"ATELIER_TEST_GPUS": GPUS, **more}, starter=starter) as service:
        service.stop()
        orders = service.home / "crash-at"
        service.more = {**service.more, ENVIRONMENT: str(orders)}
        place = Mortal(service.start(), orders)
        service.talk_by(Transport(place.found))
        yield place
        place.order()
        place.revive()
        place.settle()
        place.sweep()
