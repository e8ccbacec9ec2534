"""The part of the store's suite on the queue: what is claimed in which order, with which devices, and what waits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from atelier.quantities import utcnow
from atelier.records import AttemptState, Reason, Run, RunState
from atelier.service.store import Capacity, Claim, Quota, Store, Wait, hash_token, holder_of
from atelier.service.store.leases import KERNEL
from atelier.testing.samples import BROKEN, DONE, GIB, GPU, claimed, due_now, queued, running, starting

FREE = Quota()
OTHER = "google.com/tpu"


def gpus(*devices: str, cpu: float | None = None) -> Capacity:
    """A machine with these GPUs."""
    return Capacity(cpu=cpu, devices={GPU: devices})


def held(store: Store) -> dict[str, str]:
    """Device → holder."""
    return {lease.device: lease.holder for lease in store.leases.held()}


def hold(store: Store, kernel: str, owner: str = "bob#1", *, count: int = 1, lifetime_s: float = 60.0) -> list[str]:
    """Devices of a machine with two GPUs for a kernel."""
    devices = ["GPU-a", "GPU-b"]
    return store.leases.hold(
        KERNEL + kernel, owner=owner, resource=GPU, devices=devices, count=count, lifetime_s=lifetime_s
    )


class QueueSuite:
    """Claims are all or nothing, never twice, in the order of the queue, and nobody starves."""

    def test_nothing_is_claimed_where_nothing_waits(self, store: Store) -> None:
        assert store.queue.claim(Capacity(), FREE) == (None, [])

    def test_a_claim_starts_an_attempt(self, store: Store) -> None:
        run_id = queued(store)
        claim, waits = store.queue.claim(Capacity(), FREE)
        assert claim is not None
        assert (claim.run_id, claim.n, claim.devices, waits) == (run_id, 1, {}, [])
        assert len(claim.token) == 64
        run = store.runs.get(run_id)
        assert (run.state, run.attempts[0].state) == (RunState.STARTING, AttemptState.STARTING)
        assert store.queue.claim(Capacity(), FREE) == (None, [])
        assert [row.id for row in store.runs.live_attempts()] == [run_id]

    def test_who_had_no_turn_for_longest_comes_next(self, store: Store) -> None:
        ids = [queued(store, owner) for owner in ("bob#1", "ann#1", "carl#1", "ann#1", "bob#1")]
        assert [claimed(store).run_id for _ in ids] == [*ids[:3], ids[4], ids[3]]

    # -- devices --------------------------------------------------------------------------------------------------
    def test_devices_are_leased_all_or_none(self, store: Store) -> None:
        two = queued(store, gpus=2)
        assert store.queue.claim(gpus("GPU-a"), FREE)[0] is None
        assert held(store) == {}
        assert store.runs.get(two).attempts == []
        claim = claimed(store, gpus("GPU-a", "GPU-b", "GPU-c"))
        assert claim.devices == {GPU: ["GPU-a", "GPU-b"]}
        assert held(store) == dict.fromkeys(["GPU-a", "GPU-b"], holder_of(two, 1))

    def test_twelve_claimers_of_four_devices_get_four(self, store: Store) -> None:
        ids = {queued(store, f"user{n % 3}#1", gpus=1) for n in range(12)}
        machine, together = gpus("GPU-1", "GPU-2", "GPU-3", "GPU-4"), threading.Barrier(12)

        def claim_one() -> Claim | None:
            together.wait(10)
            return store.queue.claim(machine, FREE)[0]

        with ThreadPoolExecutor(12) as pool:
            claims = [each.result(timeout=30) for each in [pool.submit(claim_one) for _ in range(12)]]
        won = [claim for claim in claims if claim is not None]
        assert len(won) == 4
        assert {claim.run_id for claim in won} < ids
        assert len({claim.run_id for claim in won}) == 4
        assert sorted(device for claim in won for device in claim.devices[GPU]) == list(machine.devices[GPU])
        assert len({claim.token for claim in won}) == 4
        assert len(held(store)) == 4

    def test_every_run_is_claimed_once_by_many_claimers(self, store: Store) -> None:
        ids = [queued(store) for _ in range(12)]

        def claim_all() -> list[str]:
            mine = []
            while (claim := store.queue.claim(Capacity(), FREE)[0]) is not None:
                mine.append(claim.run_id)
            return mine

        with ThreadPoolExecutor(4) as pool:
            lists = [each.result(timeout=30) for each in [pool.submit(claim_all) for _ in range(4)]]
        assert sorted(run_id for mine in lists for run_id in mine) == sorted(ids)

    def test_an_end_gives_the_devices_back(self, store: Store) -> None:
        for outcome in (DONE, BROKEN):
            queued(store, gpus=1)
            claim = claimed(store, gpus("GPU-a"))
            assert held(store) == {"GPU-a": holder_of(claim.run_id, claim.n)}
            store.runs.finish(claim.run_id, claim.n, outcome)
            assert held(store) == {}

    def test_a_retry_leases_anew(self, store: Store) -> None:
        run_id = queued(store, gpus=1, retries=1)
        claim = claimed(store, gpus("GPU-a"))
        store.runs.finish(run_id, claim.n, BROKEN)
        assert held(store) == {}
        due_now(store, run_id)
        assert claimed(store, gpus("GPU-b")).devices == {GPU: ["GPU-b"]}
        assert held(store) == {"GPU-b": holder_of(run_id, 2)}

    def test_a_device_that_vanished_is_not_given(self, store: Store) -> None:
        queued(store, gpus=1)
        claimed(store, gpus("GPU-a", "GPU-b"))
        second = queued(store, gpus=1)
        claim, waits = store.queue.claim(gpus("GPU-a"), FREE)
        assert claim is None
        assert [(wait.run_id, wait.reason) for wait in waits] == [(second, Reason.WAITS_FOR_ACCELERATOR)]

    # -- kernels --------------------------------------------------------------------------------------------------
    def test_kernels_and_runs_share_one_stock(self, store: Store) -> None:
        assert hold(store, "k1") == ["GPU-a"]
        assert hold(store, "k1") == ["GPU-a"], "a renewal took another device"
        queued(store, gpus=1)
        assert claimed(store, gpus("GPU-a", "GPU-b")).devices == {GPU: ["GPU-b"]}
        assert hold(store, "k2") == []
        waiting = queued(store, gpus=1)
        assert store.queue.claim(gpus("GPU-a", "GPU-b"), FREE)[1] == [Wait(waiting, Reason.WAITS_FOR_ACCELERATOR)]
        store.leases.release(f"{KERNEL}k1", "carl#1")
        assert len(store.leases.held()) == 2, "a kernel's device was given back by somebody else"
        for _ in range(2):
            store.leases.release(f"{KERNEL}k1", "bob#1")
        assert claimed(store, gpus("GPU-a", "GPU-b")).run_id == waiting

    def test_a_kernel_gets_all_devices_or_none(self, store: Store) -> None:
        assert hold(store, "k1", count=2) == ["GPU-a", "GPU-b"]
        assert hold(store, "k2") == []
        store.leases.release(f"{KERNEL}k1", "bob#1")
        assert hold(store, "k2") == ["GPU-a"]
        assert hold(store, "k1", count=2) == []
        assert [lease.device for lease in store.leases.held()] == ["GPU-a"]

    def test_a_kernel_that_renews_no_more_loses_its_device(self, store: Store) -> None:
        hold(store, "k1", lifetime_s=5)
        queued(store, gpus=1)
        run = claimed(store, gpus("GPU-b"))
        assert store.leases.expire(utcnow()) == 0
        assert store.leases.expire(utcnow() + timedelta(seconds=6)) == 1
        assert [lease.holder for lease in store.leases.held()] == [holder_of(run.run_id, run.n)]

    @pytest.mark.parametrize("lifetime_s", [-3600, 3600])
    def test_a_lifetime_begins_anew_whatever_the_clock_said_before(self, store: Store, lifetime_s: float) -> None:
        hold(store, "k1", lifetime_s=lifetime_s)
        store.leases.prolong(5)
        assert store.leases.expire(utcnow()) == 0
        assert store.leases.expire(utcnow() + timedelta(seconds=6)) == 1

    def test_another_owners_kernel_of_the_same_name_renews_nothing(self, store: Store) -> None:
        assert hold(store, "k1", "ann#1", count=2) == ["GPU-a", "GPU-b"]
        assert hold(store, "k1", "bob#1") == []
        assert {lease.owner for lease in store.leases.held()} == {"ann#1"}

    def test_who_waits_for_his_own_kernel_is_told(self, store: Store) -> None:
        hold(store, "k1", "ann#1", count=2)
        mine, others, plain = queued(store, gpus=1), queued(store, "bob#1", gpus=1), queued(store)
        claim, waits = store.queue.claim(gpus("GPU-a", "GPU-b"), FREE)
        assert claim is not None
        assert claim.run_id == plain
        assert waits == [Wait(mine, Reason.WAITS_FOR_OWN_KERNEL), Wait(others, Reason.WAITS_FOR_ACCELERATOR)]

    # -- who waits, and why ---------------------------------------------------------------------------------------
    def test_a_full_machine_is_waited_for(self, store: Store) -> None:
        for capacity, fields in (
            (Capacity(cpu=2.0), {"cpu": 1.5}),
            (Capacity(memory_bytes=2 * GIB), {"memory_bytes": GIB + 1}),
        ):
            queued(store, **fields)
            claim = claimed(store, capacity)
            second = queued(store, **fields)
            nothing, waits = store.queue.claim(capacity, FREE)
            assert nothing is None
            assert [(wait.run_id, wait.reason) for wait in waits] == [(second, Reason.WAITS_FOR_CAPACITY)]
            store.runs.finish(claim.run_id, claim.n, DONE)
            assert claimed(store, capacity).run_id == second
            store.runs.finish(second, 1, DONE)

    def test_small_runs_do_not_starve_a_large_one(self, store: Store) -> None:
        capacity = Capacity(cpu=4.0)
        queued(store, cpu=2)
        first = claimed(store, capacity)
        large, small = queued(store, cpu=4), queued(store, cpu=1)
        claim, waits = store.queue.claim(capacity, FREE)
        assert claim is None, "the small run went past the large one that waits for the whole machine"
        assert {wait.run_id: wait.reason for wait in waits} == dict.fromkeys([large, small], Reason.WAITS_FOR_CAPACITY)
        store.runs.finish(first.run_id, first.n, DONE)
        assert claimed(store, capacity).run_id == large

    def test_small_runs_do_not_starve_one_that_needs_many_devices(self, store: Store) -> None:
        machine = gpus("GPU-a", "GPU-b")
        queued(store, gpus=1)
        first = claimed(store, machine)
        double, single, plain = queued(store, gpus=2), queued(store, gpus=1), queued(store)
        assert claimed(store, machine).run_id == plain, "who needs no device was held up"
        claim, waits = store.queue.claim(machine, FREE)
        assert claim is None, "the small run took a device that an earlier one waits for"
        assert waits == [Wait(double, Reason.WAITS_FOR_ACCELERATOR), Wait(single, Reason.WAITS_FOR_ACCELERATOR)]
        store.runs.finish(first.run_id, first.n, DONE)
        assert claimed(store, machine).run_id == double
        assert store.queue.claim(machine, FREE)[1] == [Wait(single, Reason.WAITS_FOR_ACCELERATOR)]
        store.runs.finish(double, 1, DONE)
        assert claimed(store, machine).run_id == single

    def test_a_run_keeps_no_more_devices_than_it_needs(self, store: Store) -> None:
        """Of one kind it waits for more; of the other it keeps two, and the third is a later run's."""
        machine = Capacity(devices={GPU: ["GPU-a"], OTHER: ["T-1", "T-2", "T-3"]})
        queued(store, gpus=1)
        first = claimed(store, machine)
        both = queued(store, accelerators={GPU: 1, OTHER: 2})
        later = [queued(store, accelerators={OTHER: count}) for count in (1, 2)]
        claim = claimed(store, machine)
        assert (claim.run_id, claim.devices) == (later[0], {OTHER: ["T-3"]})
        assert store.queue.claim(machine, FREE)[0] is None
        store.runs.finish(first.run_id, first.n, DONE)
        assert claimed(store, machine).devices == {GPU: ["GPU-a"], OTHER: ["T-1", "T-2"]}
        assert store.runs.get(both).state is RunState.STARTING

    def test_what_no_run_can_free_is_kept_for_nobody(self, store: Store) -> None:
        """More devices than there are, those of kernels, and what the owner's limit forbids anyway."""
        machine = gpus("GPU-a", "GPU-b")
        running(store, "ann#1")
        limited = queued(store, "ann#1", gpus=2)
        hold(store, "k1", "carl#1")
        too_many, behind_kernel = queued(store, "bob#1", gpus=3), queued(store, "carl#1", gpus=2)
        single = queued(store, "dora#1", gpus=1)
        claim, waits = store.queue.claim(machine, Quota(runs=1))
        assert claim is not None, f"a device lay idle: {waits}"
        assert (claim.run_id, claim.devices) == (single, {GPU: ["GPU-b"]})
        waits_for = [
            Wait(too_many, Reason.WAITS_FOR_ACCELERATOR),
            Wait(behind_kernel, Reason.WAITS_FOR_OWN_KERNEL),
        ]
        assert waits == waits_for
        waits_for.append(Wait(limited, Reason.WAITS_FOR_USER_LIMIT))
        assert store.queue.claim(machine, Quota(runs=1)) == (None, waits_for)
        next_one = queued(store, "emil#1", gpus=1)
        store.leases.release(f"{KERNEL}k1", "carl#1")
        assert store.queue.claim(machine, Quota(runs=1))[0] is None, "the device that the kernel gave back was taken"
        store.runs.finish(single, 1, DONE)
        assert [claimed(store, machine, Quota(runs=1)).run_id] == [behind_kernel]
        store.runs.finish(behind_kernel, 1, DONE)
        assert claimed(store, machine, Quota(runs=1)).run_id == next_one

    def test_one_owners_limit_holds_up_nobody_else(self, store: Store) -> None:
        for quota, fields in (
            (Quota(runs=1), {}),
            (Quota(cpu=3.0), {"cpu": 2.0}),
            (Quota(memory_bytes=3 * GIB), {"memory_bytes": 2 * GIB}),
        ):
            mine = running(store, "ann#1", **fields)
            second, others = queued(store, "ann#1", **fields), queued(store, "bob#1", **fields)
            claim, waits = store.queue.claim(Capacity(), quota)
            assert claim is not None
            assert (claim.run_id, waits) == (others, [])
            assert store.queue.claim(Capacity(), quota) == (None, [Wait(second, Reason.WAITS_FOR_USER_LIMIT)])
            store.runs.finish(mine.run_id, mine.n, DONE)
            assert claimed(store, Capacity(), quota).run_id == second
            for run_id in (second, others):
                store.runs.finish(run_id, 1, DONE)

    def test_a_crowd_of_one_owner_holds_up_nobody_else(self, store: Store) -> None:
        running(store, "ann#1")
        for _ in range(203):
            queued(store, "ann#1")
        other = queued(store, "bob#1")
        claim, _ = store.queue.claim(Capacity(), Quota(runs=1))
        assert claim is not None, "the run of another owner is not seen behind those that wait for their own limit"
        assert claim.run_id == other

    def test_what_is_cancelled_or_over_waits_no_more(self, store: Store) -> None:
        cancelled, expired = queued(store), queued(store)
        store.runs.cancel(cancelled, grace_s=0.0)
        store.runs.expire(expired)
        assert store.queue.claim(Capacity(), FREE) == (None, [])

    def test_the_first_of_the_queue_are_told_of_their_places(self, store: Store) -> None:
        claim = running(store, "carl#1", gpus=1)
        ids = [queued(store, owner, gpus=1) for owner in ("ann#1", "bob#1", "ann#1")]
        assert store.queue.first(2) == [(ids[0], "ann#1"), (ids[1], "bob#1")]
        store.runs.cancel(ids[0], grace_s=0.0)
        assert store.queue.first(9) == [(ids[1], "bob#1"), (ids[2], "ann#1")]
        before = store.runs.newest_change("ann#1")
        store.queue.moved([*ids, claim.run_id])
        assert [run.id for _, run in store.runs.changed_since("ann#1", before) if isinstance(run, Run)] == [ids[2]]
        assert store.runs.get(ids[2]).queue_position == 2

    def test_whatever_may_let_a_run_start_is_counted(self, store: Store) -> None:
        """A claim that failed is not tried again while nothing is; what is not counted here is waited for in vain."""
        holder, waiting, other = running(store, gpus=1, retries=1), queued(store, gpus=1), queued(store, gpus=1)
        hold(store, "k1")
        changes: list[Callable[[], object]] = [
            lambda: queued(store),
            lambda: store.order.first(other),
            lambda: store.order.last(other),
            lambda: store.order.before(other, waiting),
            lambda: store.order.prioritise(other, 3),
            lambda: store.leases.release(f"{KERNEL}k1", "bob#1"),
            lambda: hold(store, "k2", lifetime_s=1),
            lambda: store.leases.expire(utcnow() + timedelta(seconds=2)),
            lambda: store.runs.finish(holder.run_id, holder.n, BROKEN),
            lambda: store.order.first(holder.run_id),
            lambda: store.runs.expire(other),
            lambda: claimed(store),
        ]
        for number, change in enumerate(changes):
            before = store.queue.stirred()
            assert store.queue.stirred() == before
            change()
            assert store.queue.stirred().count > before.count, f"change {number}"

    def test_it_is_told_when_the_next_pause_ends(self, store: Store) -> None:
        assert store.queue.stirred().pause_ends is None
        claim = running(store, retries=1)
        paused = store.runs.finish(claim.run_id, claim.n, BROKEN).not_before
        stir = store.queue.stirred()
        assert paused is not None
        assert stir.pause_ends == paused
        assert (stir.is_over(paused - timedelta(seconds=1)), stir.is_over(paused)) == (False, True)

    def test_a_claim_that_nobody_took_up_is_made_again_with_another_token(self, store: Store) -> None:
        claim = starting(store, gpus=1)
        again = store.queue.again(claim.run_id, claim.n)
        assert again is not None
        assert (again.run_id, again.n, again.devices) == (claim.run_id, claim.n, claim.devices)
        assert store.runs.by_token(hash_token(claim.token)) is None
        known = store.runs.by_token(hash_token(again.token))
        assert known is not None
        assert (known.run_id, known.n) == (claim.run_id, claim.n)
        store.runs.finish(claim.run_id, claim.n, DONE)
        assert store.queue.again(claim.run_id, claim.n) is None
