"""Does to a store what services, agents and users do, in any order, and predicts what becomes of each run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, initialize, multiple, rule

from atelier.records import RETRYABLE, Artifact, AttemptState, Reason, Run, RunState
from atelier.service.store import Claim, NewRun, Outcome, Store, hash_token
from atelier.service.store.streams import Point
from atelier.testing.samples import GPU, beat, new_run
from tests.contract.store_model import (
    CAPACITY,
    DEVICES,
    FINAL_OF,
    LEASE_S,
    PREEMPTED,
    QUOTA,
    SHAPES,
    Clock,
    Known,
    StoreModel,
    refused,
    run_key,
    spec_of,
)

OUTCOMES = (
    Outcome(AttemptState.SUCCEEDED, exit_code=0),
    Outcome(AttemptState.FAILED, Reason.CODE_ERROR, "ValueError: no", 1),
    Outcome(AttemptState.FAILED, Reason.IMPORT_ERROR, exit_code=1),
    Outcome(AttemptState.CANCELLED, Reason.CANCELLED_BY_USER),
    Outcome(AttemptState.TIMED_OUT, Reason.DEADLINE),
    PREEMPTED,
    Outcome(AttemptState.LOST, Reason.AGENT_LOST),
)
STOPS = ("deadline", "stalled")
OWNERS = st.sampled_from(["ann#1", "bob#1"])
KEYS = st.sampled_from([None, None, "k1", "k2"])
KERNELS = st.sampled_from(["kernel:1", "kernel:2"])


class StoreMachine(StoreModel):
    """Rules are calls of the store; after each the rows are checked, and compared with what was predicted."""

    runs = Bundle("runs")
    claims = Bundle("claims")
    any_run = st.one_of(claims.map(lambda claim: claim.run_id), runs)

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
        run = self.known[run_id]
        if run.is_removed:
            refused("unknown_run", lambda: self.store.runs.cancel(run_id, grace_s=grace_s))
            return
        if run.state in {RunState.CREATED, RunState.QUEUED}:
            run.state = RunState.CANCELLED
        elif run.is_live:
            run.is_cancelled, run.stop = True, run.stop or "cancel"
        self._agrees(self.store.runs.cancel(run_id, grace_s=grace_s))

    @rule(run_id=any_run)
    def remove(self, run_id: str) -> None:
        run = self.known[run_id]
        if run.is_removed:
            refused("unknown_run", lambda: self.store.runs.remove(run_id))
        elif not run.state.is_final:
            refused("run_is_live", lambda: self.store.runs.remove(run_id))
        elif run.is_pinned:
            refused("run_is_pinned", lambda: self.store.runs.remove(run_id))
        else:
            self.store.runs.remove(run_id)
            run.is_removed = True
            refused("unknown_run", lambda: self.store.runs.get(run_id))

    @rule(run_id=any_run, pinned=st.booleans())
    def pin(self, run_id: str, pinned: bool) -> None:
        run = self.known[run_id]
        if run.is_removed:
            refused("unknown_run", lambda: self.store.keeping.pin(run_id, pinned=pinned))
        else:
            self.store.keeping.pin(run_id, pinned=pinned)
            run.is_pinned = pinned

    @rule(run_id=any_run, other=any_run, how=st.sampled_from(["first", "last", "before", "priority"]))
    def move(self, run_id: str, other: str, how: str) -> None:
        order, run = self.store.order, self.known[run_id]
        calls: dict[str, Callable[[], object]] = {
            "first": lambda: order.first(run_id),
            "last": lambda: order.last(run_id),
            "before": lambda: order.before(run_id, other),
            "priority": lambda: order.prioritise(run_id, len(other) - 10),
        }
        beside = self.known[other] if how == "before" else run
        if not run.waits or not beside.waits:
            wrong = run if not run.waits else beside
            refused("unknown_run" if wrong.is_removed else "not_waiting", calls[how])
        elif beside.owner != run.owner:
            refused("unknown_run", calls[how])
        else:
            calls[how]()
            queue = [waiting for waiting, _ in self.store.queue.first(99)]
            assert sorted(queue) == sorted(one.id for one in self.known.values() if one.waits)

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
        self.store.queue.tell(waits)
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
        self.store.runs.stop(claim.run_id, claim.n, why, grace_s=30.0)
        if run.lives_in(claim):
            run.stop = run.stop or why

    @rule(claim=claims)
    def launched(self, claim: Claim) -> None:
        run = self.known[claim.run_id]
        if not run.is_removed:
            run.launches[claim.n] = run.launches.get(claim.n, 0) + 1
            assert self.store.runs.launched(claim.run_id, claim.n) == run.launches[claim.n]

    @rule(claim=claims)
    def again(self, claim: Claim) -> None:
        """An attempt that no agent has taken up is begun again, with another token; the old one is nobody's."""
        fresh = self.store.queue.again(claim.run_id, claim.n)
        assert (fresh is not None) == self.known[claim.run_id].lives_in(claim)
        if fresh is not None:
            assert fresh.token != self.tokens.get(run_key(claim), claim.token)
            assert sorted(fresh.devices.get(GPU, [])) == sorted(self.devices[claim.run_id])
            self.tokens[run_key(claim)] = fresh.token
            assert self.store.runs.by_token(hash_token(claim.token)) is None

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
