"""The part of the store's suite on the order of the queue: shares, priorities, long waits, moves of one's own runs."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Row, event, insert, select, update

from atelier.errors import Conflict, NotFound
from atelier.quantities import utcnow
from atelier.records import RunState, new_run_id
from atelier.service.store import Capacity, Claim, Quota, Store
from atelier.service.store.schema import runs, turns
from atelier.service.store.workqueue import MOST_TOLD
from atelier.testing.samples import BROKEN, DONE, claimed, created, due_now, finished, queued, running

HOUR = timedelta(hours=1)


def line(store: Store) -> list[str]:
    """Ids of all that wait, in order; their places are that order."""
    ids = [run_id for run_id, _ in store.queue.first(1000)]
    assert [store.runs.get(run_id).queue_position for run_id in ids] == list(range(1, len(ids) + 1))
    return ids


def waits_since(store: Store, run_id: str, age: timedelta) -> None:
    """Let a run have waited for so long."""
    with store.database.write() as connection:
        this = update(runs).where(runs.c.id == run_id)
        connection.execute(this.values(queued_at=utcnow() - age, turn_at=utcnow() - age))


def described(
    waiting: Sequence[Row[Any]],
    live: Mapping[str, int],
    taken: Mapping[str, datetime],
    had_late: Mapping[str, bool],
    *,
    now: datetime,
) -> list[str]:
    """The order of the queue as `ordering` words it."""

    def pauses(row: Row[Any]) -> bool:
        return row.not_before is not None and now < row.not_before < now + HOUR

    def since(row: Row[Any]) -> datetime:
        moment: datetime = row.not_before or row.queued_at
        return moment

    due = [row for row in waiting if not pauses(row)]
    late: dict[str, Row[Any]] = {}
    for row in sorted(due, key=lambda row: (since(row), row.id)):
        if since(row) < now - HOUR and row.queued_at < now - HOUR and not had_late[row.owner]:
            late.setdefault(row.owner, row)
    own: dict[str, list[Row[Any]]] = {owner: [] for owner in live}
    for row in sorted(due, key=lambda row: (-row.priority, row.turn_at, row.id)):
        if row not in late.values():
            own[row.owner].append(row)
    last_turn = {owner: (0, taken[owner].timestamp() if owner in taken else 0.0) for owner in live}
    for number, owner in enumerate(late):
        last_turn[owner] = (1, float(number))
    counts = {owner: live[owner] + (owner in late) for owner in live}
    fair: list[str] = []
    while any(own.values()):  # one after another, as if none ended meanwhile
        heads = [each[0] for each in own.values() if each]
        row = min(heads, key=lambda row: (counts[row.owner], last_turn[row.owner], row.turn_at, row.owner))
        fair.append(own[row.owner].pop(0).id)
        counts[row.owner] += 1
        last_turn[row.owner] = (2, float(len(fair)))
    first = [row.id for row in sorted(late.values(), key=lambda row: (since(row), row.id))]
    last = sorted((row.not_before, row.id) for row in waiting if pauses(row))
    return [*first, *fair, *(run_id for _, run_id in last)]


def multiply(store: Store, run_id: str, copies: int) -> None:
    """More waiting runs like that one, each a moment later."""
    with store.database.write() as connection:
        row = dict(connection.execute(select(runs).where(runs.c.id == run_id)).mappings().one())
        moments = (row["turn_at"] + timedelta(microseconds=n) for n in range(1, copies + 1))
        rows = [row | {"id": new_run_id(), "turn_at": moment, "queued_at": moment} for moment in moments]
        connection.execute(insert(runs), rows)


@contextmanager
def statements(store: Store) -> Iterator[list[str]]:
    """What is asked of the database meanwhile."""
    seen: list[str] = []

    def note(*of: Any) -> None:
        seen.append(of[2])

    event.listen(store.database.engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(store.database.engine, "before_cursor_execute", note)


def drained(store: Store) -> list[str]:
    """Ids of all that wait as they are claimed, each ended before the next is."""
    order = []
    while (claim := store.queue.claim(Capacity(), Quota())[0]) is not None:
        order.append(claim.run_id)
        store.runs.finish(claim.run_id, claim.n, DONE)
    return order


class OrderSuite:
    """Owners have equal shares, priorities and moves order one's own runs only, and nobody waits for ever."""

    # -- shares ---------------------------------------------------------------------------------------------------
    def test_many_runs_of_one_owner_keep_no_other_from_starting(self, store: Store) -> None:
        many = [queued(store, "ann#1") for _ in range(20)]
        one = queued(store, "bob#1")
        assert line(store)[:3] == [many[0], one, many[1]]
        assert claimed(store).run_id == many[0]
        assert claimed(store).run_id == one
        assert claimed(store).run_id == many[1]

    def test_who_has_fewer_live_runs_comes_next(self, store: Store) -> None:
        lives = [running(store, "ann#1"), running(store, "ann#1"), running(store, "bob#1")]
        ann = [queued(store, "ann#1") for _ in range(2)]
        bob, carl = [queued(store, "bob#1") for _ in range(2)], queued(store, "carl#1")
        assert line(store) == [carl, bob[0], ann[0], bob[1], ann[1]]
        store.runs.finish(lives[0].run_id, 1, DONE)
        store.runs.finish(lives[1].run_id, 1, DONE)
        assert line(store) == [carl, ann[0], bob[0], ann[1], bob[1]]

    def test_owners_take_turns_where_there_is_room_for_one(self, store: Store) -> None:
        """None is live when the next is looked for: a count of those that live would let the older crowd go on."""
        ann = [queued(store, "ann#1") for _ in range(5)]
        bob = [queued(store, "bob#1") for _ in range(2)]
        claim = claimed(store)
        carl = queued(store, "carl#1")
        store.runs.finish(claim.run_id, claim.n, DONE)
        assert claim.run_id == ann[0]
        assert line(store) == [bob[0], carl, ann[1], bob[1], ann[2], ann[3], ann[4]]
        assert drained(store) == [bob[0], carl, ann[1], bob[1], ann[2], ann[3], ann[4]]

    def test_shares_come_out_equal(self, store: Store) -> None:
        """Whatever is submitted in which order: of the first starts every owner who has enough runs gets as many."""
        chance = random.Random(7)
        owners = ["ann#1"] * 30 + ["bob#1"] * 12 + ["carl#1"] * 9
        chance.shuffle(owners)
        whose = {queued(store, owner, priority=chance.randrange(-9, 9)): owner for owner in owners}
        claims = [claimed(store) for _ in range(24)]
        assert Counter(whose[claim.run_id] for claim in claims) == {"ann#1": 8, "bob#1": 8, "carl#1": 8}

    @pytest.mark.parametrize("seed", range(5))
    def test_the_order_is_the_one_that_is_described(self, store: Store, seed: int) -> None:
        """Against a plain reading of the rules, over queues of every kind."""
        chance, now = random.Random(seed), utcnow()
        owners = [f"{letter}#1" for letter in "abcde"]
        live = {owner: chance.randrange(3) for owner in owners}
        taken = {owner: now - HOUR * chance.randrange(1, 9) for owner in owners if chance.random() < 0.6}
        had_late = {owner: owner in taken and chance.random() < 0.5 for owner in owners}
        one = queued(store)
        multiply(store, one, 60)
        with store.database.write() as connection:
            ids = list(connection.execute(select(runs.c.id).order_by(runs.c.id)).scalars())
            for owner in owners:
                for _ in range(live[owner]):
                    this = update(runs).where(runs.c.id == ids.pop())
                    connection.execute(this.values(owner=owner, state=chance.choice(["starting", "running"])))
                if owner in taken:
                    late_at = now - HOUR / 2 if had_late[owner] else None
                    connection.execute(insert(turns).values(owner=owner, taken_at=taken[owner], late_at=late_at))
            for run_id in ids:
                age = HOUR * chance.choice([0, 0.1, 0.5, 2, 3, 5])
                pause = chance.choice([None, None, None, -HOUR / 60, -HOUR * 2, HOUR / 30, HOUR * 9])
                connection.execute(
                    update(runs).where(runs.c.id == run_id).values(
                        owner=chance.choice(owners), priority=chance.randrange(-2, 3), queued_at=now - age,
                        turn_at=now - HOUR * chance.choice([0.2, 1, 4]),
                        not_before=None if pause is None else now + pause,
                    )
                )  # fmt: skip
            waiting = list(connection.execute(select(runs).where(runs.c.state == RunState.QUEUED.value)))
        assert line(store) == described(waiting, live, taken, had_late, now=now)

    def test_nobody_starves_and_no_limit_is_passed(self, store: Store) -> None:
        """A stream of small runs of several owners, and large ones among them: all start, in bounded time."""
        chance, capacity, quota = random.Random(3), Capacity(cpu=4.0), Quota(runs=2, cpu=4.0)
        waiting: dict[str, tuple[str, int]] = {}
        live: list[Claim] = []
        longest = 0
        for step in range(80):
            if step < 36:
                owner, cpu = chance.choice(["ann#1", "bob#1", "carl#1"]), chance.choice([1.0, 1.0, 2.0, 4.0])
                waiting[queued(store, owner, cpu=cpu, priority=chance.randrange(3))] = (owner, step)
            if live and (step >= 36 or chance.random() < 0.8):
                over = live.pop(chance.randrange(len(live)))
                store.runs.finish(over.run_id, over.n, DONE)
            while (claim := store.queue.claim(capacity, quota)[0]) is not None:
                live.append(claim)
                longest = max(longest, step - waiting.pop(claim.run_id)[1])
            rows = store.runs.live_attempts()
            assert sum(row.cpu for row in rows) <= 4.0
            assert max(Counter(row.owner for row in rows).values(), default=0) <= 2
        assert not waiting
        assert longest < 50

    # -- priorities -----------------------------------------------------------------------------------------------
    def test_a_priority_orders_ones_own_runs_only(self, store: Store) -> None:
        plain, urgent = queued(store, "ann#1"), queued(store, "ann#1", priority=5)
        others, later = queued(store, "bob#1"), queued(store, "bob#1", priority=100)
        last = queued(store, "ann#1", priority=-1)
        assert line(store) == [urgent, later, plain, others, last]
        assert [store.runs.get(run_id).priority for run_id in (plain, urgent, last)] == [0, 5, -1]
        assert drained(store) == [urgent, later, plain, others, last]

    def test_a_priority_can_be_changed_while_a_run_waits(self, store: Store) -> None:
        first, second = queued(store), queued(store)
        before = store.runs.newest_change("ann#1")
        store.order.prioritise(second, 3)
        assert line(store) == [second, first]
        assert store.runs.get(second).priority == 3
        assert store.runs.get(second).spec.priority == 0, "what was asked for at first is no record of now"
        assert [run.id for _, run in store.runs.changed_since("ann#1", before) if not isinstance(run, str)] == [second]
        store.order.prioritise(second, -3)
        assert line(store) == [first, second]

    # -- long waits -----------------------------------------------------------------------------------------------
    def test_who_waits_for_too_long_goes_first(self, store: Store) -> None:
        """Though others have fewer live runs, and though its owner put it last."""
        for _ in range(3):
            running(store, "ann#1")
        old, older = queued(store, "ann#1", priority=9), queued(store, "ann#1", priority=-9)
        waits_since(store, old, HOUR * 2)
        waits_since(store, older, HOUR * 3)
        fresh = [queued(store, "bob#1") for _ in range(5)]
        assert line(store)[:2] == [older, fresh[0]]
        assert claimed(store).run_id == older
        assert line(store)[0] == fresh[0], "an owner's long wait was counted twice in an hour"

    def test_a_crowd_that_waits_for_long_keeps_nobody_from_starting(self, store: Store) -> None:
        crowd = [queued(store, "ann#1") for _ in range(10)]
        for place, run_id in enumerate(crowd):
            waits_since(store, run_id, HOUR * (20 - place))
        other = queued(store, "bob#1")
        assert line(store)[:2] == [crowd[0], other]
        assert [claimed(store).run_id for _ in range(2)] == [crowd[0], other]

    def test_long_waits_of_several_go_in_the_order_of_submits(self, store: Store) -> None:
        ids = [queued(store, owner) for owner in ("ann#1", "bob#1", "carl#1")]
        for run_id, hours in zip(ids, (2, 4, 3), strict=True):
            waits_since(store, run_id, HOUR * hours)
        assert line(store) == [ids[1], ids[2], ids[0]]

    def test_a_large_run_is_not_passed_by_for_ever(self, store: Store) -> None:
        """Owners with fewer live runs pass it by; not after the patience."""
        machine = Capacity(cpu=4.0)
        holder = running(store, "ann#1")
        large = queued(store, "ann#1", cpu=4.0)
        small = queued(store, "bob#1")
        assert claimed(store, machine).run_id == small
        waits_since(store, large, HOUR * 2)
        queued(store, "carl#1")
        assert store.queue.claim(machine, Quota())[0] is None, "a small run went past a large one that waits for long"
        store.runs.finish(holder.run_id, 1, DONE)
        store.runs.finish(small, 1, DONE)
        assert claimed(store, machine).run_id == large

    def test_a_retry_keeps_its_turn_and_begins_to_wait_anew(self, store: Store) -> None:
        claim = running(store, retries=3)
        later = queued(store)
        waits_since(store, claim.run_id, HOUR * 5)
        store.runs.finish(claim.run_id, claim.n, BROKEN)
        assert line(store) == [later, claim.run_id], "what pauses is not tried before what can start"
        assert store.queue.claim(Capacity(), Quota())[0] is not None
        due_now(store, claim.run_id)
        between = queued(store, "ann#1")
        assert line(store) == [claim.run_id, between]

    # -- many -----------------------------------------------------------------------------------------------------
    def test_many_that_wait_cost_no_more_statements(self, store: Store) -> None:
        """Whatever is asked of the queue, the number of queries doesn't grow with it."""
        first = [queued(store, owner, gpus=1) for owner in ("ann#1", "bob#1")]
        counts = []
        for copies in (30, 600):
            multiply(store, first[0], copies)
            with statements(store) as seen:
                nothing, waits = store.queue.claim(Capacity(), Quota())
                assert nothing is None
                assert len(waits) == min(MOST_TOLD, len(store.queue.first(1000)))
                store.runs.page("ann#1", states=(RunState.QUEUED,), limit=50, before=None)
                store.queue.first(100)
                store.order.last(first[0])
                store.order.first(first[0])
            counts.append(len(seen))
        assert counts[1] <= counts[0] < 60

    def test_a_crowd_at_its_owners_limit_is_not_looked_through(self, store: Store) -> None:
        one = queued(store)
        multiply(store, one, 700)
        claimed(store, Capacity(), Quota(runs=1))
        other = queued(store, "bob#1", priority=-100)
        assert claimed(store, Capacity(), Quota(runs=1)).run_id == other
        nothing, waits = store.queue.claim(Capacity(), Quota(runs=1))
        assert (nothing, len(waits)) == (None, MOST_TOLD)

    # -- moves ----------------------------------------------------------------------------------------------------
    def test_ones_own_runs_exchange_their_turns(self, store: Store) -> None:
        a, b, c, d = (queued(store) for _ in range(4))
        moves: list[tuple[Callable[..., None], tuple[str, ...], list[str]]] = [
            (store.order.first, (c,), [c, a, b, d]),
            (store.order.first, (c,), [c, a, b, d]),
            (store.order.last, (c,), [a, b, d, c]),
            (store.order.before, (d, a), [d, a, b, c]),
            (store.order.before, (d, b), [a, d, b, c]),
            (store.order.before, (d, d), [a, d, b, c]),
            (store.order.before, (d, b), [a, d, b, c]),
        ]
        for move, of, wanted in moves:
            move(*of)
            assert line(store) == wanted
        assert [claimed(store).run_id for _ in range(4)] == [a, d, b, c]

    def test_a_move_crosses_priorities(self, store: Store) -> None:
        low, plain, high = queued(store, priority=-2), queued(store), queued(store, priority=7)
        assert line(store) == [high, plain, low]
        store.order.first(low)
        assert (line(store), store.runs.get(low).priority) == ([low, high, plain], 7)
        store.order.last(high)
        assert (line(store), store.runs.get(high).priority) == ([low, plain, high], 0)
        store.order.before(high, low)
        assert (line(store), store.runs.get(high).priority) == ([high, low, plain], 7)

    def test_a_move_takes_nothing_from_others(self, store: Store) -> None:
        """Of equal shares the one goes first who has waited longer; a move makes nobody's wait longer than it is."""
        bob, ann = queued(store, "bob#1"), [queued(store, "ann#1") for _ in range(3)]
        store.order.first(ann[2])
        assert line(store) == [bob, ann[2], ann[0], ann[1]]
        with pytest.raises(NotFound) as caught:
            store.order.before(ann[0], bob)
        assert caught.value.code == "unknown_run"
        assert line(store) == [bob, ann[2], ann[0], ann[1]]

    def test_runs_of_one_moment_are_moved_too(self, store: Store) -> None:
        ids = sorted(queued(store) for _ in range(4))
        with store.database.write() as connection:
            connection.execute(update(runs).values(turn_at=utcnow()))
        assert line(store) == ids
        store.order.last(ids[0])
        assert line(store) == [*ids[1:], ids[0]]
        store.order.before(ids[3], ids[2])
        assert line(store) == [ids[1], ids[3], ids[2], ids[0]]

    def test_a_pause_ends_for_who_goes_first(self, store: Store) -> None:
        claim = running(store, retries=1)
        run = store.runs.finish(claim.run_id, claim.n, BROKEN)
        assert store.queue.claim(Capacity(), Quota())[0] is None
        store.order.first(run.id)
        run = store.runs.get(run.id)
        assert "Waiting until" not in run.message
        assert claimed(store).run_id == run.id

    def test_only_what_waits_is_moved(self, store: Store) -> None:
        lives, over, new = running(store).run_id, finished(store, "bob#1"), created(store, "carl#1")
        waits = queued(store)
        for run_id in (lives, over, new):
            moves: list[tuple[Callable[..., None], tuple[object, ...]]] = [
                (store.order.first, (run_id,)),
                (store.order.last, (run_id,)),
                (store.order.before, (run_id, waits)),
                (store.order.before, (waits, run_id)),
                (store.order.prioritise, (run_id, 1)),
            ]
            for move, of in moves:
                with pytest.raises(Conflict) as caught:
                    move(*of)
                assert caught.value.code == "not_waiting"
        with pytest.raises(NotFound):
            store.order.first("r-aaaaaaaaaa")
        assert store.runs.get(waits).state is RunState.QUEUED
