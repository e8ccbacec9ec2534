"""The loop that drives what is observed to what is desired: starts, stops, brings in, gives up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row
from sqlalchemy.exc import DatabaseError

from atelier.crash_points import crash_point
from atelier.errors import AtelierError
from atelier.quantities import utcnow
from atelier.records import AttemptState, Reason, RunSpec, RunState
from atelier.service.attempts import AttemptManager
from atelier.service.backends import Backend, Key, Launch, Sign
from atelier.service.feed import Feed
from atelier.service.known import Known
from atelier.service.manager import RunManager
from atelier.service.places import Places
from atelier.service.recovery import Recovery
from atelier.service.starts import Starts, is_passing, told
from atelier.service.steps import Steps
from atelier.service.stops import Stops
from atelier.service.store import Claim, Outcome, Quota, Store, is_disk_full
from atelier.service.store.database import database_trouble
from atelier.service.store.leases import LIFETIME_S
from atelier.service.store.lifecycle import WORDS
from atelier.service.timekeeping import Leaps
from atelier.settings import Limits

log = logging.getLogger("atelier.service")

TICK_S = 1.0
STOP_GRACE_S = 10.0
KILL_GRACE_S = 10.0
DEAF_S = 30.0
MOST_LAUNCHES = 5
"""How often an agent is started that dies before it begins."""

RECORD_GRACE_S = 15.0


@dataclass
class Reconciler:
    """Level-triggered: each pass looks at all that isn't final and takes the next step; a lost wake-up costs a tick.

    The agent enforces time limits and stops its own work. What stands here is for agents that died or don't answer.
    While the service was away nobody could speak to it, so that all patience begins anew with it.
    """

    store: Store
    backend: Backend
    runs: RunManager
    attempts: AttemptManager
    feed: Feed
    limits: Limits
    is_held: Callable[[], bool] = lambda: False
    may_decide: Callable[[], bool] = lambda: True
    """Asked before each pass: whether no other service decides on these runs."""
    _records_due: datetime = field(default_factory=utcnow)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _loop: asyncio.AbstractEventLoop | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _steps: Steps = field(default_factory=Steps)
    _is_full: bool = False
    _is_full_told: bool = False
    _is_damage_told: bool = False
    _places: Places = field(init=False)
    _recovery: Recovery = field(init=False)
    _starts: Starts = field(default_factory=Starts)
    _refused: Known = field(default_factory=Known)
    _stops: Stops = field(init=False)
    _leaps: Leaps = field(default_factory=Leaps)

    def __post_init__(self) -> None:
        self._places = Places(self.store, self.feed)
        self._recovery = Recovery(self.backend, self.attempts, self.is_held)
        self._stops = Stops(self.attempts.silence)

    def wake(self) -> None:
        """Look at once instead of at the next tick; from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake.set)

    async def run(self) -> None:
        """Go on until cancelled."""
        self._loop = asyncio.get_running_loop()
        while True:
            try:
                await self.step()
            except Exception:
                log.exception("A pass of the reconciler failed; the next one tries again.")
            try:
                await asyncio.wait_for(self._wake.wait(), TICK_S)
            except TimeoutError:
                continue
            finally:
                self._wake.clear()

    async def step(self) -> None:
        """One pass over everything; what fails for one run, or in one part, keeps no other back.

        Over a damaged database none is made: agents go on, and keep what they have to tell.
        """
        if self.store.database.damage is not None:
            self._tell_damage(self.store.database.damage)
            return
        if not await asyncio.to_thread(self.may_decide):
            return
        self._is_full = False
        for part in (
            self._refill,
            self._finish_submits,
            self._watch_live,
            self._follow_the_clock,
            self._expire_queue,
            self._expire_leases,
            self._start_waiting,
            self._places.tell_places,
            self._write_records,
            self._recovery.tidy,
        ):
            await self._apart(part(), part.__name__)
        self._is_full_told = self._is_full

    async def _apart(self, work: Coroutine[Any, Any, None], what: str) -> None:
        try:
            await work
        except Exception as problem:
            if is_disk_full(problem) or self._is_out_of_reach(problem):
                self._tell_full(problem, what)
            elif self.store.database.damage is None:
                log.exception("%s failed; the next pass tries again.", what)

    async def _for_run(self, run_id: str, work: Coroutine[Any, Any, None], what: str) -> None:
        await self._steps.take(run_id, self._apart(work, what), what)

    def _is_out_of_reach(self, problem: Exception) -> bool:
        """Whether the database can't be used for now: its disk is read-only or broken, or it is locked."""
        database = self.store.database
        if database.damage is not None or not isinstance(problem, DatabaseError):
            return False
        return database_trouble(problem, database.url) is not None

    def _tell_full(self, problem: Exception, what: str) -> None:
        """Tell the log once of a disk that takes nothing, not for each run in each pass."""
        self._is_full = True
        if not self._is_full_told:
            self._is_full_told = True
            why = "A disk is full" if is_disk_full(problem) else "The database can't be used"
            cause = problem.orig if isinstance(problem, DatabaseError) else problem
            log.error("%s: %s failed, and is tried again in each pass. %s", why, what, cause)

    def _tell_damage(self, damage: AtelierError) -> None:
        if not self._is_damage_told:
            self._is_damage_told = True
            log.error("%s Nothing is written any more. %s", damage.message, damage.hint)

    async def _refill(self) -> None:
        await asyncio.to_thread(self.store.reserve.refill)

    async def _follow_the_clock(self) -> None:
        """Keep what ends at a time of day as far away as it was, when the computer's clock was set."""
        if leap_s := self._leaps.leap_s():
            await asyncio.to_thread(self.store.leases.prolong, LIFETIME_S)
            await asyncio.to_thread(self.store.runs.postpone, timedelta(seconds=leap_s))

    async def _expire_leases(self) -> None:
        await asyncio.to_thread(self.store.leases.expire, utcnow())

    # -- submits that a crash cut in two --------------------------------------------------------------------------
    async def _finish_submits(self) -> None:
        for run_id in await asyncio.to_thread(
            self.store.runs.in_state, RunState.CREATED, utcnow() - timedelta(seconds=5)
        ):
            await self._for_run(run_id, self._finish_submit(run_id), f"the submit of {run_id}")

    async def _finish_submit(self, run_id: str) -> None:
        run = await asyncio.to_thread(self.store.runs.get, run_id)
        try:
            await asyncio.to_thread(self.runs.complete, run)
        except FileNotFoundError:
            message = "The service ended while the run was submitted, and its code did not arrive."
            await asyncio.to_thread(self.store.runs.give_up, run_id, Reason.START_FAILED, message)
        self.feed.touch(run.owner)

    # -- starts ---------------------------------------------------------------------------------------------------
    async def _start_waiting(self) -> None:
        if not self._starts.are_due:
            return
        quota = Quota(self.limits.runs_per_user, self.limits.cpu_per_user, self.limits.memory_per_user)
        while True:
            capacity = await asyncio.to_thread(self.backend.capacity)
            stir = await asyncio.to_thread(self.store.queue.stirred)
            if self._refused.stands(stir, capacity):
                return
            claim, waits = await asyncio.to_thread(self.store.queue.claim, capacity, quota)
            for owner in await asyncio.to_thread(self.store.queue.tell, waits):
                self.feed.touch(owner)
            if claim is None:
                self._refused.note(stir, capacity)
                return
            crash_point("service.claim.after")
            run = await asyncio.to_thread(self.store.runs.get, claim.run_id)
            self.feed.touch(run.owner)
            if not await self._launch(_launch_of(claim, run.owner)):
                return

    async def _launch(self, launch: Launch) -> bool:
        """Start an agent; whether others may be started, too: what the computer lacks just now, it lacks for all."""
        if lacking := await asyncio.to_thread(self.attempts.lacking, launch.key.run_id):
            self._starts.lacks_image(launch.key)
            await self._tell_start(launch, *lacking)
            return True
        try:
            await asyncio.to_thread(self.attempts.clear, *launch.key)
            crash_point("service.launch.cleared")
            await asyncio.to_thread(self.store.runs.launched, *launch.key)
            crash_point("service.launch.counted")
            await self.backend.start(launch)
            crash_point("service.launch.after")
        except OSError as problem:
            if is_passing(problem):
                log.error("Attempt %s/%s can't be started now, and is tried again: %s", *launch.key, problem)
                self._starts.put_off(launch.key)
                await self._tell_start(launch, *told(problem))
                return False
            log.exception("Attempt %s/%s could not be started.", *launch.key)
            message = f"The run could not be started: {problem}."
            await self._finish(launch.key, Outcome(AttemptState.FAILED, Reason.START_FAILED, message))
        if self._starts.is_put_off(launch.key):
            await self._tell_start(launch, WORDS[RunState.STARTING], "")
        self._starts.went_on(launch.key)
        return True

    async def _tell_start(self, launch: Launch, message: str, hint: str) -> None:
        """Say in a run's record how its start goes; room is held for it where the disk is full."""
        tell = self.store.runs.tell_start
        if await asyncio.to_thread(self.store.reserve.use, lambda: tell(*launch.key, message, hint=hint)):
            self.feed.touch(launch.owner)

    # -- live attempts --------------------------------------------------------------------------------------------
    async def _watch_live(self) -> None:
        rows = await asyncio.to_thread(self.store.runs.live_attempts)
        live = [Key(row.id, row.attempt_n) for row in rows]
        self.attempts.silence.look(live)
        self._stops.look(live)
        if not rows:
            return
        signs = await self.backend.observe(live)
        for row in rows:
            await self._for_run(row.id, self._watch_one(row, signs[Key(row.id, row.attempt_n)]), f"watching {row.id}")

    async def _watch_one(self, row: Row[Any], sign: Sign) -> None:
        key = Key(row.id, row.attempt_n)
        if sign is Sign.GONE:
            await self._bring_in(key, row)
        elif sign is Sign.ABSENT:
            await self._without_folder(key, row)
        else:
            await self._limit(key, row)

    async def _bring_in(self, key: Key, row: Row[Any]) -> None:
        """Have what a dead agent left brought in; the work is over, and who brings it in is held to no limit of it."""
        await self.backend.kill(key)
        if row.attempt_work_ended_at is None:
            await asyncio.to_thread(self.store.reserve.use, lambda: self.store.runs.work_ended(*key))
        self.attempts.silence.heard(key)
        if not await self._recovery.tries(key, row.attempt_recoveries):
            message = "The run's supervising process died, and what it left could not be brought in."
            await self._finish(key, await self._recovery.end_of(key, row.attempt_stop, message))

    async def _without_folder(self, key: Key, row: Row[Any]) -> None:
        """Start what nobody has begun, which costs no retry; give up what was begun and whose folder somebody removed.

        The service that claimed it has ended before it started an agent, or the agent before it began.
        """
        is_new = row.attempt_last_seen_at == row.attempt_created_at
        may_start = row.attempt_launches < MOST_LAUNCHES or self._starts.is_put_off(key)
        if is_new and row.attempt_stop is None and may_start:
            claim = await asyncio.to_thread(self.store.queue.again, *key) if self._starts.is_due(key) else None
            if claim is not None:
                await self._launch(_launch_of(claim, row.owner))
            return
        message = "The run's folder was removed from its machine, and its work was ended."
        if is_new:
            message = f"The run's supervising process was started {row.attempt_launches} times and never began."
        await self.backend.kill(key)
        await self._finish(key, await self._recovery.end_of(key, row.attempt_stop, message))

    async def _limit(self, key: Key, row: Row[Any]) -> None:
        """End an agent that neither stops its work nor delivers; another one then brings in what it left.

        One that can be heard keeps its work's limits itself. One that lives and is not heard was stopped, or hangs.
        """
        silent_s = self.attempts.silence.of(key)
        if silent_s > self.limits.silence:
            log.warning("The agent of %s/%s lives and says nothing: it is ended.", *key)
            await self.backend.kill(key)
        elif row.attempt_work_ended_at is not None:
            return  # what delivers is held to its silence alone
        elif row.attempt_stop is not None:
            if self._stops.is_over(key, (row.attempt_stop_grace_s or 0.0) + KILL_GRACE_S):
                await self.backend.kill(key)
        elif silent_s > DEAF_S:
            await self._limit_deaf(key, row, silent_s)

    async def _limit_deaf(self, key: Key, row: Row[Any], silent_s: float) -> None:
        """Keep the limits of a work whose agent is not heard: it runs on since it was heard last."""
        spec = RunSpec.model_validate(row.spec)
        if spec.timeout_s is not None and row.attempt_started_at is not None:
            before_s = await asyncio.to_thread(self.store.runs.ran_s, row.id)
            if before_s + row.attempt_ran_s + silent_s > spec.timeout_s + KILL_GRACE_S:
                await self._stop(key, "deadline")
        if spec.stall_timeout_s is not None and silent_s > spec.stall_timeout_s + DEAF_S:
            await self._stop(key, "stalled")

    async def _stop(self, key: Key, why: str) -> None:
        await asyncio.to_thread(lambda: self.store.runs.stop(*key, why, grace_s=STOP_GRACE_S))

    async def _finish(self, key: Key, outcome: Outcome) -> None:
        crash_point("service.lost.before")
        run = await asyncio.to_thread(self.attempts.end, key, outcome)
        crash_point("service.lost.rows")
        self.feed.touch(run.owner)
        await self.backend.clean(key)
        crash_point("service.lost.after")

    # -- the queue's own limit ------------------------------------------------------------------------------------
    async def _expire_queue(self) -> None:
        for run_id in await asyncio.to_thread(self.store.runs.overdue, utcnow()):
            await self._for_run(run_id, self._expire_one(run_id), f"the queue limit of {run_id}")

    async def _expire_one(self, run_id: str) -> None:
        crash_point("service.expire.before")
        run = await asyncio.to_thread(self.store.runs.expire, run_id)
        crash_point("service.expire.after")
        self.feed.touch(run.owner)
        await asyncio.to_thread(self.attempts.write_record, run_id)

    # -- records that a crash or a full disk kept from being written -----------------------------------------------
    async def _write_records(self) -> None:
        now, grace = utcnow(), timedelta(seconds=RECORD_GRACE_S)
        if now < self._records_due:
            return
        self._records_due = now + grace
        for run_id in await asyncio.to_thread(self.store.runs.unrecorded, now - grace):
            await self._for_run(run_id, self._catch_up(run_id), f"the record of {run_id}")

    async def _catch_up(self, run_id: str) -> None:
        await asyncio.to_thread(self.attempts.catch_up, run_id)

    def attempt_ended(self, run_id: str, n: int) -> None:
        """An agent has reported its attempt's end: free its place for the next run, and clean up after it."""
        self.wake()
        cleaning = self._apart(self._clean_up(Key(run_id, n)), f"cleaning up after {run_id}/{n}")
        task = asyncio.get_running_loop().create_task(cleaning)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _clean_up(self, key: Key) -> None:
        deadline = asyncio.get_running_loop().time() + KILL_GRACE_S
        while (await self.backend.observe([key]))[key] is Sign.ALIVE and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.1)
        crash_point("service.clean.before")
        await self.backend.kill(key)
        crash_point("service.clean.killed")
        await self.backend.clean(key)
        crash_point("service.clean.after")

    async def sweep(self) -> None:
        """At start: let no kernel's lease end yet, and end and remove what attempts that are over have left."""
        await asyncio.to_thread(self.store.leases.prolong, LIFETIME_S)
        for key in await self.backend.leftovers():
            await self._for_run(key.run_id, self._sweep_one(key), f"the sweep of {key.run_id}/{key.n}")

    async def _sweep_one(self, key: Key) -> None:
        state = await self._attempt_state(key)
        if state is None or state.is_final:
            crash_point("service.sweep.before")
            await self.backend.kill(key)
            await self.backend.clean(key)
            crash_point("service.sweep.after")

    async def _attempt_state(self, key: Key) -> AttemptState | None:
        try:
            run = await asyncio.to_thread(self.store.runs.get, key.run_id)
        except AtelierError:
            return None
        return next((attempt.state for attempt in run.attempts if attempt.n == key.n), None)


def _launch_of(claim: Claim, owner: str) -> Launch:
    return Launch(Key(claim.run_id, claim.n), owner, claim.token, claim.devices)
