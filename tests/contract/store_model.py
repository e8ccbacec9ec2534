"""What is to be true of a store after whatever was done to it: a model of its runs, and the checks against it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Any

import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant

import atelier.quantities
import atelier.records
from atelier.errors import AtelierError
from atelier.records import AttemptState, Reason, Run, RunState
from atelier.service.store import Capacity, Claim, Outcome, Quota, Store, hash_token, holder_of
from atelier.testing.samples import GPU
from tests.contract.store_checks import faults_of, rows_of

DEVICES = ("GPU-a", "GPU-b")
CAPACITY = Capacity(cpu=4.0, devices={GPU: DEVICES})
QUOTA = Quota(runs=2, cpu=3.0)
SHAPES: tuple[dict[str, Any], ...] = (
    {},
    {"retries": 1},
    {"retries": 2, "cpu": 2.0},
    {"gpus": 1},
    {"gpus": 2, "retries": 1},
    {"cpu": 3.0, "queue_timeout_s": 60.0},
)
PREEMPTED = Outcome(AttemptState.PREEMPTED, Reason.PREEMPTED, exit_code=75)
FINAL_OF = {
    AttemptState.SUCCEEDED: RunState.SUCCEEDED,
    AttemptState.FAILED: RunState.FAILED,
    AttemptState.CANCELLED: RunState.CANCELLED,
    AttemptState.TIMED_OUT: RunState.TIMED_OUT,
    AttemptState.LOST: RunState.LOST,
}
LEASE_S = 90.0


class Clock(datetime):
    """The present moment, which stands still until it is moved."""

    moment = datetime(2026, 1, 1, 12, tzinfo=UTC)

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return cls.moment


@dataclass
class Known:
    """What is to be true of one run."""

    id: str
    owner: str
    shape: dict[str, Any]
    state: RunState = RunState.CREATED
    n: int = 0
    failures: int = 0
    is_cancelled: bool = False
    stop: str | None = None
    is_pinned: bool = False
    is_removed: bool = False
    launches: dict[int, int] = field(default_factory=dict)
    sizes: dict[tuple[int, str], int] = field(default_factory=dict)
    points: int = 0
    paths: set[str] = field(default_factory=set)
    steps: set[int] = field(default_factory=set)

    @property
    def is_live(self) -> bool:
        return self.state in {RunState.STARTING, RunState.RUNNING} and not self.is_removed

    @property
    def waits(self) -> bool:
        return self.state is RunState.QUEUED and not self.is_removed

    def lives_in(self, claim: Claim) -> bool:
        return self.is_live and self.n == claim.n


def refused(code: str, call: Callable[[], object]) -> None:
    """Call what the store has to refuse, with that code."""
    with pytest.raises(AtelierError) as caught:
        call()
    assert caught.value.code == code


def spec_of(shape: dict[str, Any]) -> dict[str, Any]:
    """The part of a shape that a run's spec holds; the machine's size is none of it."""
    return {name: value for name, value in shape.items() if name in {"retries", "queue_timeout_s"}}


def cpu_of(run: Known) -> float:
    return float(run.shape.get("cpu", 1.0))


def run_key(claim: Claim) -> tuple[str, int]:
    return claim.run_id, claim.n


class StoreModel(RuleBasedStateMachine):
    """Holds an open store and what is predicted of it; rules are its subclass's.

    Parameters
    ----------
    opened : callable
        Gives an empty store.
    """

    def __init__(self, opened: Callable[[], Store]) -> None:
        super().__init__()
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(atelier.quantities, "datetime", Clock)
        self._patch.setattr(Clock, "moment", Clock.moment)
        self._patch.setattr(atelier.records, "secrets", random.Random(1))  # the same ids whenever an example is tried
        self.store = opened()
        self.known: dict[str, Known] = {}
        self.keys: dict[tuple[str, str], tuple[dict[str, Any], str]] = {}
        self.kernels: dict[tuple[str, str], tuple[list[str], datetime]] = {}
        self.devices: dict[str, list[str]] = {}
        self.views: dict[str, tuple[int, dict[str, tuple[RunState, int]]]] = {}
        self.newest_change = 0
        self.touched: set[str] = set()
        self.tokens: dict[tuple[str, int], str] = {}

    def teardown(self) -> None:
        try:
            self.everything_is_as_predicted()
        finally:
            self.let_go()

    def let_go(self) -> None:
        """Close the store, and let the clock go on."""
        self._patch.undo()
        self.store.close()

    # -- what is true after each ----------------------------------------------------------------------------------
    @invariant()
    def rows_are_sound(self) -> None:
        rows = rows_of(self.store)
        faults = faults_of(rows, CAPACITY, QUOTA)
        assert not faults, "; ".join(faults)
        assert rows.newest_change >= self.newest_change, "the counter of changes went back"
        self.newest_change = rows.newest_change
        there = {run.id: (run.state, run.n) for run in self.known.values() if not run.is_removed}
        agree("state", {run.id: (run.state, run.attempt) for run in rows.runs}, there)
        agree("leases", {lease.device: lease.holder for lease in rows.leases}, self._holders())
        keys = {(row.owner, row.key): row.run_id for row in rows.submissions}
        agree("keys", keys, {who: run_id for who, (_, run_id) in self.keys.items()})
        while self.touched:
            self._agrees(self.store.runs.get(self.touched.pop()))

    def everything_is_as_predicted(self) -> None:
        for run in self.known.values():
            if not run.is_removed:
                self._agrees(self.store.runs.get(run.id))

    def _agrees(self, run: Run) -> None:
        known, numbers = self.known[run.id], range(1, len(run.attempts) + 1)
        agree("state", (run.state, len(run.attempts)), (known.state, known.n))
        agree("artifacts", run.artifacts, len(known.paths))
        agree("log", [one.log_size_bytes for one in run.attempts], [known.sizes.get((n, "log"), 0) for n in numbers])
        agree("place", run.queue_position is not None, known.waits)
        told = self.store.streams.curves(run.id, "loss")
        agree("points", told["loss"]["count"] if told else 0, known.points)

    # -- what is predicted ----------------------------------------------------------------------------------------
    def _takes(self, claim: Claim, call: Callable[[], object]) -> bool:
        """Whether the store takes what an attempt tells, which it is to do while the attempt lives."""
        row = self.store.runs.by_token(hash_token(self.tokens.get(run_key(claim), claim.token)))
        run = self.known[claim.run_id]
        assert (row is None) == run.is_removed
        assert row is None or (row.run_id, row.n) == run_key(claim)
        if not run.lives_in(claim):
            refused("stale_attempt", call)
            return False
        call()
        self.touched.add(claim.run_id)
        return True

    def _due(self) -> list[Known]:
        later = {row.id for row in rows_of(self.store).runs if row.not_before and row.not_before > Clock.moment}
        return [run for run in self.known.values() if run.waits and run.id not in later]

    def _fits(self, run: Known) -> bool:
        living = [one for one in self.known.values() if one.is_live]
        mine = [one for one in living if one.owner == run.owner]
        assert QUOTA.runs is not None
        assert QUOTA.cpu is not None
        assert CAPACITY.cpu is not None
        return (
            len(mine) < QUOTA.runs
            and sum(map(cpu_of, [run, *mine])) <= QUOTA.cpu
            and sum(map(cpu_of, [run, *living])) <= CAPACITY.cpu
            and run.shape.get("gpus", 0) <= len(self._free())
        )

    def _holders(self) -> dict[str, str]:
        of_runs = {
            one: holder_of(run_id, self.known[run_id].n) for run_id, held in self.devices.items() for one in held
        }
        return of_runs | {one: kernel for (kernel, _), (held, _) in self.kernels.items() for one in held}

    def _free(self) -> list[str]:
        return [device for device in DEVICES if device not in self._holders()]


def agree(what: str, found: object, predicted: object) -> None:
    assert found == predicted, f"{what}: found {found}, predicted {predicted}"
