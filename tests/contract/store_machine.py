"""Does to a store what services, agents and users do, in any order, and predicts what becomes of each run."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

import atelier.quantities
import atelier.records
from atelier.errors import AtelierError
from atelier.records import RETRYABLE, Artifact, AttemptState, Reason, Run, RunState
from atelier.service.store import Capacity, Claim, NewRun, Outcome, Quota, Store, hash_token, holder_of
from atelier.service.store.streams import Point
from atelier.testing.samples import GPU, beat, new_run
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
OUTCOMES = (
    Outcome(AttemptState.SUCCEEDED, exit_code=0),
    Outcome(AttemptState.FAILED, Reason.CODE_ERROR, "ValueError: no", 1),
    Outcome(AttemptState.FAILED, Reason.IMPORT_ERROR, exit_code=1),
    Outcome(AttemptState.CANCELLED, Reason.CANCELLED_BY_USER),
    Outcome(AttemptState.TIMED_OUT, Reason.DEADLINE),
    PREEMPTED,
    Outcome(AttemptState.LOST, Reason.AGENT_LOST),
)
FINAL_OF = {
    AttemptState.SUCCEEDED: RunState.SUCCEEDED,
    AttemptState.FAILED: RunState.FAILED,
    AttemptState.CANCELLED: RunState.CANCELLED,
    AttemptState.TIMED_OUT: RunState.TIMED_OUT,
    AttemptState.LOST: RunState.LOST,
}
STOPS = ("deadline", "stalled")
LEASE_S = 90.0

OWNERS = st.sampled_from(["ann#1", "bob#1"])
KEYS = st.sampled_from([None, None, "k1", "k2"])
KERNELS = st.sampled_from(["kernel:1", "kernel:2"])


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


class StoreMachine(RuleBasedStateMachine):
    """Rules are calls of the store; after each the rows are checked, and compared with what was predicted.

    Parameters
    ----------
    opened : callable
        Gives an empty store.
    """

    runs = Bundle("runs")
    claims = Bundle("claims")
    any_run = st.one_of(claims.map(lambda claim: claim.run_id), runs)

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

    def teardown(self) -> None:
        try:
            self.everything_is_as_predicted()
        finally:
            self.let_go()

    def let_go(self) -> None:
        """Close the store, and let the clock go on."""
        self._patch.undo()
        self.store.close()

    @initialize(target=claims, shape=st.sampled_from(SHAPES[1:]))
    def begin(self, shape: dict[str, Any]) -> Any:
        """Most that can happen happens to runs that live."""
        run_id = self.submit("ann#1", None, shape, True)
        claim = self.claim(True)
        assert claim.run_id == run_id
        return claim

    # -- what users do --------------------------------------------------------------------------------------------
    @rule(
        target=runs,
        owner=OWNERS,
        key=KEYS,
        shape=st.sampled_from(SHAPES),
        is_queued=st.sampled_from([True, True, False]),
    )
    def submit(self, owner: str, key: str | None, shape: dict[str, Any], is_queued: bool) -> Any:
        new = new_run(owner, key=key, **shape)
        if key is not None and (owner, key) in self.keys:
            self._repeat(new, *self.keys[owner, key], is_same=spec_of(shape) == spec_of(self.keys[owner, key][0]))
            return multiple()
        run, fresh = self.store.runs.submit(new)
        assert fresh
        assert run.id not in self.known
        self.known[run.id] = Known(run.id, owner, shape)
        if key is not None:
            self.keys[owner, key] = shape, run.id
        if is_queued:
            self.queue(run.id)
        return run.id

    def _repeat(self, new: NewRun, shape: dict[str, Any], run_id: str, *, is_same: bool) -> None:
        if not is_same:
            refused("key_reused", lambda: self.store.runs.submit(new))
        elif self.known[run_id].is_removed:
            refused("run_removed", lambda: self.store.runs.submit(new))
        else:
            run, fresh = self.store.runs.submit(new)
            assert (run.id, fresh) == (run_id, False), "a key has made a second run"

    @rule(run_id=any_run, grace_s=st.sampled_from([0, 30]))
    def cancel(self, run_id: str, grace_s: int) -> None:
        run, stop_at = self.known[run_id], Clock.moment + timedelta(seconds=grace_s)
        if run.is_removed:
            refused("unknown_run", lambda: self.store.runs.cancel(run_id, stop_at=stop_at))
            return
        if run.state in {RunState.CREATED, RunState.QUEUED}:
            run.state = RunState.CANCELLED
        elif run.is_live:
            run.is_cancelled, run.stop = True, run.stop or "cancel"
        self._agrees(self.store.runs.cancel(run_id, stop_at=stop_at))

    @rule(run_id=any_run)
    def remove(self, run_id: str) -> None:
        run = self.known[run_id]
        if run.is_removed:
            refused("unknown_run", lambda: self.store.runs.remove(run_id))
        elif not run.state.is_final:
            refused("run_is_live", lambda: self.store.runs.remove(run_id))
        else:
            self.store.runs.remove(run_id)
            run.is_removed = True
            refused("unknown_run", lambda: self.store.runs.get(run_id))

    @rule(owner=OWNERS)
    def follow(self, owner: str) -> None:
        """Who goes on from the last number that he saw ends with what there is."""
        newest, view = self.views.get(owner, (0, {}))
        for number, told in self.store.runs.changed_since(owner, newest):
            assert number > newest, "the changes came out of order"
            newest = number
            if isinstance(told, Run):
                view[told.id] = told.state, told.epoch
            else:
                view.pop(told, None)
        self.views[owner] = newest, view
        mine = {run.id: run.state for run in self.known.values() if run.owner == owner and not run.is_removed}
        assert {run_id: state for run_id, (state, _) in view.items()} == mine, "who follows changes sees other states"

    # -- what the service does ------------------------------------------------------------------------------------
    @rule(run_id=any_run)
    def queue(self, run_id: str) -> None:
        run = self.known[run_id]
        self.store.runs.queue(run_id)
        if run.state is RunState.CREATED and not run.is_removed:
            run.state = RunState.QUEUED

    @rule(target=claims, is_started=st.booleans())
    def claim(self, is_started: bool) -> Any:
        due = self._due()
        could = [run for run in due if self._fits(run)]
        claim, waits = self.store.queue.claim(CAPACITY, QUOTA)
        assert {wait.run_id for wait in waits} <= {run.id for run in due}
        if claim is None:
            assert not (could and len(due) == 1), f"{could} could start, and nothing else waits"
            return multiple()
        run = self.known[claim.run_id]
        assert run in could, f"{run} was started, and could not be"
        assert claim.n == run.n + 1
        given = [device for devices in claim.devices.values() for device in devices]
        assert set(given) <= set(self._free()), f"{given} were not free"
        assert len(given) == run.shape.get("gpus", 0)
        run.state, run.n, run.stop = RunState.STARTING, claim.n, None
        self.devices[run.id] = given
        if is_started:
            self.started(claim)
        return claim

    @rule(run_id=any_run, is_late=st.booleans())
    def drop(self, run_id: str, is_late: bool) -> None:
        """End what waits: it waits for too long, or no attempt can be made of it."""
        run = self.known[run_id]
        if not is_late:
            self.store.runs.give_up(run_id, Reason.START_FAILED, "It could not be started.")
            if run.state in {RunState.CREATED, RunState.QUEUED} and not run.is_removed:
                run.state = RunState.FAILED
        elif run.is_removed:
            refused("unknown_run", lambda: self.store.runs.expire(run_id))
        else:
            run.state = RunState.TIMED_OUT if run.waits else run.state
            self._agrees(self.store.runs.expire(run_id))

    @rule(claim=claims, why=st.sampled_from(STOPS))
    def stop(self, claim: Claim, why: str) -> None:
        run = self.known[claim.run_id]
        self.store.runs.stop(claim.run_id, claim.n, why, stop_at=Clock.moment)
        if run.lives_in(claim):
            run.stop = run.stop or why

    @rule(claim=claims)
    def launched(self, claim: Claim) -> None:
        run = self.known[claim.run_id]
        if not run.is_removed:
            run.launches[claim.n] = run.launches.get(claim.n, 0) + 1
            assert self.store.runs.launched(claim.run_id, claim.n) == run.launches[claim.n]

    # -- what agents do, also those whose attempt is over ----------------------------------------------------------
    @rule(claim=claims)
    def started(self, claim: Claim) -> None:
        if self._takes(claim, lambda: self.store.runs.started(claim.run_id, claim.n, None)):
            self.known[claim.run_id].state = RunState.RUNNING

    @rule(claim=claims, usage=st.sampled_from([{}, {"cpu_percent": 7.0}]))
    def heartbeat(self, claim: Claim, usage: dict[str, float]) -> None:
        orders: list[tuple[str, float] | None] = []
        if self._takes(claim, lambda: orders.append(beat(self.store, claim, usage=usage))):
            assert [order and order[0] for order in orders] == [self.known[claim.run_id].stop]

    @rule(claim=claims, stream=st.sampled_from(["log", "metrics"]), skipped=st.sampled_from([0, 0, 0, -3, 4]),
          length=st.sampled_from([5, 9, 0]))  # fmt: skip
    def append(self, claim: Claim, stream: str, skipped: int, length: int) -> None:
        """Only what begins where the stream ends counts; the answer says where that is."""
        run, place = self.known[claim.run_id], (claim.n, stream)
        size = run.sizes.get(place, 0)
        points = [Point("loss", run.points, 0.5, 1.0)] if stream == "metrics" else []
        answers: list[int] = []
        call = lambda: answers.append(  # noqa: E731
            self.store.streams.appended(*run_key(claim), stream, offset=size + skipped, length=length, points=points)
        )
        if self._takes(claim, call):
            counts = skipped == 0 and length > 0
            run.sizes[place] = size + length if counts else size
            run.points += len(points) if counts else 0
            assert answers == [run.sizes[place]]

    @rule(claim=claims, path=st.sampled_from(["a", "b/c", "ü 🙂"]), digest=st.sampled_from(["0" * 64, "1" * 64]))
    def keep(self, claim: Claim, path: str, digest: str) -> None:
        artifact = Artifact(path=path, size_bytes=1, sha256=digest, attempt=claim.n, created_at=Clock.moment)
        if self._takes(claim, lambda: self.store.artifacts.add(claim.run_id, artifact)):
            self.known[claim.run_id].paths.add(path)

    @rule(claim=claims, step=st.integers(0, 5))
    def checkpoint(self, claim: Claim, step: int) -> None:
        if self._takes(claim, lambda: self.store.artifacts.add_checkpoint(claim.run_id, claim.n, step, [])):
            run = self.known[claim.run_id]
            run.steps.add(step)
            kept = {one.step for one in self.store.artifacts.checkpoints(run.id)}
            assert step in kept, "the checkpoint that was published last is gone"
            assert kept <= run.steps
            assert len(kept) == min(3, len(run.steps))
            run.steps = kept

    @rule(claim=claims)
    def work_ended(self, claim: Claim) -> None:
        self.store.runs.work_ended(claim.run_id, claim.n)

    @rule(claim=claims, outcome=st.sampled_from(OUTCOMES))
    def finish(self, claim: Claim, outcome: Outcome) -> None:
        run = self.known[claim.run_id]
        if run.is_removed:
            refused("unknown_run", lambda: self.store.runs.finish(claim.run_id, claim.n, outcome))
            return
        if run.lives_in(claim):
            run.failures += outcome.state is not AttemptState.PREEMPTED
            run.state = self._after(run, outcome)
            self.devices.pop(run.id)
        self._agrees(self.store.runs.finish(claim.run_id, claim.n, outcome))

    def _after(self, run: Known, outcome: Outcome) -> RunState:
        is_preempted = outcome.state is AttemptState.PREEMPTED
        if run.is_cancelled:
            return RunState.CANCELLED if is_preempted else FINAL_OF[outcome.state]
        may_again = outcome.reason in RETRYABLE and run.failures <= run.shape.get("retries", 0)
        return RunState.QUEUED if is_preempted or may_again else FINAL_OF[outcome.state]

    # -- what kernels do ------------------------------------------------------------------------------------------
    @rule(kernel=KERNELS, owner=OWNERS, count=st.integers(0, 2))
    def hold(self, kernel: str, owner: str, count: int) -> None:
        """Hold that many devices, or give all back for 0."""
        if count == 0:
            self.store.leases.release(kernel, owner)
            self.kernels.pop((kernel, owner), None)
            return
        free, until = self._free(), Clock.moment + timedelta(seconds=LEASE_S)
        asked = {"resource": GPU, "devices": DEVICES, "count": count, "lifetime_s": LEASE_S}
        given = self.store.leases.hold(kernel, owner=owner, **asked)
        if (kernel, owner) in self.kernels:
            assert sorted(given) == self.kernels[kernel, owner][0], "a renewal gave other devices"
        else:
            assert len(given) == (count if count <= len(free) else 0)
            assert set(given) <= set(free)
        if given:
            self.kernels[kernel, owner] = sorted(given), until

    @rule()
    def expire_leases(self) -> None:
        over = [who for who, (_, until) in self.kernels.items() if until < Clock.moment]
        assert self.store.leases.expire(Clock.moment) == sum(len(self.kernels[who][0]) for who in over)
        for who in over:
            del self.kernels[who]

    # -- what happens to all of it --------------------------------------------------------------------------------
    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = Store(self.store.database.url)

    @rule(seconds=st.sampled_from([1, 200, 3600, -3600]))
    def clock_moves(self, seconds: int) -> None:
        Clock.moment += timedelta(seconds=seconds)

    @rule(run_id=any_run)
    def fold(self, run_id: str) -> None:
        self.store.streams.fold(run_id)

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
        row = self.store.runs.by_token(hash_token(claim.token))
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
