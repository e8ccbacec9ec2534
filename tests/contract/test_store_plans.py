"""What is asked all the time is found by an index, however many runs there are; and found rightly."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select

from atelier.quantities import utcnow
from atelier.records import RunState
from atelier.service.store import Capacity, Quota, Store
from atelier.service.store.schema import runs
from atelier.testing.samples import created, finished, queued, running
from tests.benchmarks.big_store import crowd, fill, run_id_of

OWNER = "ann#1"
COUNT = 3000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with many ended runs of one owner, and a few of another."""
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('big') / 'atelier.sqlite'}")
    fill(store, OWNER, COUNT)
    finished(store, "bob#1")
    running(store, "bob#1")
    queued(store, OWNER)
    yield store
    store.close()


@contextmanager
def plans(store: Store) -> Iterator[list[str]]:
    """Meanwhile, how SQLite goes about each query that looks at runs."""
    engine, found = store.database.engine, list[str]()

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, *more: object) -> None:
        if statement.startswith(("SELECT", "WITH")) and "runs" in statement:
            steps = connection.connection.cursor().execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            found.extend(str(step[3]) for step in steps.fetchall())

    event.listen(engine, "before_cursor_execute", explain)
    try:
        yield found
    finally:
        event.remove(engine, "before_cursor_execute", explain)


QUESTIONS: dict[str, Callable[[Store], object]] = {
    "first page": lambda store: store.runs.page(OWNER, states=[], limit=50, before=None),
    "next page": lambda store: store.runs.page(OWNER, states=[], limit=50, before=(utcnow(), run_id_of(5))),
    "of a state": lambda store: store.runs.page(OWNER, states=[RunState.FAILED], limit=50, before=None),
    "of no run's state": lambda store: store.runs.page(OWNER, states=[RunState.LOST], limit=50, before=None),
    "by prefix": lambda store: store.runs.find(OWNER, run_id_of(7)[:6]),
    "one": lambda store: store.runs.get(run_id_of(7), OWNER),
    "changes": lambda store: store.runs.changed_since(OWNER, 5),
    "newest change": lambda store: store.runs.newest_change(OWNER),
    "live attempts": lambda store: store.runs.live_attempts(),
    "overdue": lambda store: store.runs.overdue(utcnow()),
    "unrecorded": lambda store: store.runs.unrecorded(utcnow()),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_index_answers(store: Store, question: str) -> None:
    with plans(store) as found:
        QUESTIONS[question](store)
    assert found
    walks = [step for step in found if step.startswith(("SCAN runs", "SCAN attempts", "SCAN transitions"))]
    assert walks == [], found


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, str]]:
    """A store in which very many runs of several owners wait, and one from their middle."""
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('crowded') / 'atelier.sqlite'}")
    waiting = crowd(store, COUNT, owners=5)
    yield store, waiting[COUNT // 2]
    store.close()


OF_THE_QUEUE: dict[str, Callable[[Store, str], object]] = {
    "a place": lambda store, run_id: store.runs.get(run_id),
    "a page of places": lambda store, run_id: store.runs.page(
        "owner1", states=[RunState.QUEUED], limit=50, before=None
    ),
    "the first": lambda store, run_id: store.queue.first(100),
    "a claim that fails": lambda store, run_id: store.queue.claim(Capacity(cpu=0.5), Quota()),
    "a claim": lambda store, run_id: store.queue.claim(Capacity(), Quota()),
    "to the front": lambda store, run_id: store.order.first(run_id),
    "to the end": lambda store, run_id: store.order.last(run_id),
    "what has changed": lambda store, run_id: store.queue.stirred(),
}


@pytest.mark.parametrize("question", OF_THE_QUEUE)
def test_a_crowd_that_waits_is_not_sorted(crowded: tuple[Store, str], question: str) -> None:
    """Each place that was shown sorted all that waited: a tenth of a second for ten thousand."""
    store, run_id = crowded
    with plans(store) as found:
        OF_THE_QUEUE[question](store, run_id)
    assert found
    sorts = [step for step in found if "B-TREE FOR ORDER BY" in step or "TERM OF ORDER BY" in step]
    assert sorts == [], found
    assert [step for step in found if step.startswith("SCAN runs")] == []


def test_a_move_touches_few_others(crowded: tuple[Store, str]) -> None:
    store, run_id = crowded
    before = turns_of(store)
    store.order.first(run_id)
    moved = {each for each, turn_at in turns_of(store).items() if turn_at != before[each]}
    assert run_id in moved
    assert len(moved) == 2, "the first one's turn is a moment later, and nobody else's"


def turns_of(store: Store) -> dict[str, datetime]:
    """The turn of each run that waits."""
    with store.database.read() as connection:
        rows = connection.execute(select(runs.c.id, runs.c.turn_at).where(runs.c.state == "queued"))
        return {row.id: row.turn_at for row in rows}


def test_a_prefix_is_found_by_both_ends_of_its_range(store: Store) -> None:
    with plans(store) as found:
        assert store.runs.find(OWNER, run_id_of(7)[:9]) == [run_id_of(7)]
    assert any("ix_runs_owner_id (owner=? AND id>? AND id<?)" in step for step in found), found


def test_the_rows_that_were_added_are_runs_like_others(store: Store) -> None:
    page = store.runs.page(OWNER, states=[], limit=COUNT + 10, before=None)
    assert len(page) == COUNT + 2
    assert [run.id for run in page[2:]] == [run_id_of(n) for n in reversed(range(COUNT))]
    assert all(len(run.attempts) == 1 for run in page[2:])
    failed = store.runs.page(OWNER, states=[RunState.FAILED], limit=COUNT, before=None)
    assert [run.id for run in failed] == [run_id_of(n) for n in reversed(range(3, COUNT, 6))]


def test_writers_of_one_process_wait_for_each_other_outside_of_sqlite(tmp_path: Path) -> None:
    """It tries again after ever longer pauses: with fifty runs that print, a line came ten seconds late."""
    store = Store(f"sqlite:///{tmp_path / 'atelier.sqlite'}")
    trying, most, together = 0, 0, threading.Barrier(8)

    def before(connection: Any, cursor: Any, statement: str, *more: object) -> None:
        nonlocal trying, most
        if statement == "BEGIN IMMEDIATE":
            trying += 1
            most = max(most, trying)

    def after(connection: Any, cursor: Any, statement: str, *more: object) -> None:
        nonlocal trying
        trying -= statement == "BEGIN IMMEDIATE"

    def write_on() -> None:
        together.wait(30)
        for _ in range(10):
            created(store)

    event.listen(store.database.engine, "before_cursor_execute", before)
    event.listen(store.database.engine, "after_cursor_execute", after)
    with ThreadPoolExecutor(8) as pool:
        for each in [pool.submit(write_on) for _ in range(8)]:
            each.result(timeout=60)
    assert len(store.runs.page(OWNER, states=[], limit=100, before=None)) == 80
    assert most == 1
    store.close()
