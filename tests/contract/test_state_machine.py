"""Whatever is done to a store in whatever order, each run ends once and truly, and nobody holds what is not his."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import delete, insert, text

from atelier.service.store import Claim, Store
from atelier.service.store.schema import counters, metadata
from atelier.testing.samples import BROKEN
from tests.contract.store_machine import StoreMachine
from tests.contract.store_model import PREEMPTED, SHAPES
from tests.fuzzing import TIMES, examples


@pytest.fixture(scope="module")
def sqlite() -> Iterator[Callable[[], Store]]:
    """Opens an empty store over a file, which lies in memory: none of this is about a loss of power."""
    folder = Path(tempfile.mkdtemp(prefix="atl-", dir="/dev/shm"))
    Store(f"sqlite:///{folder / 'empty.sqlite'}").close()

    def opened() -> Store:
        for rest in folder.glob("atelier.sqlite*"):
            rest.unlink()
        return Store(f"sqlite:///{shutil.copy(folder / 'empty.sqlite', folder / 'atelier.sqlite')}")

    yield opened
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def postgresql(postgresql_url: str) -> Callable[[], Store]:
    """Opens an empty store over PostgreSQL."""

    def opened() -> Store:
        store = Store(postgresql_url)
        with store.database.write() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(delete(table))
            connection.execute(insert(counters).values(name="changes", value=0))
        return store

    return opened


@pytest.fixture(params=["sqlite", "postgresql"])
def opened(request: pytest.FixtureRequest) -> Callable[[], Store]:
    """Opens an empty store over each of the databases."""
    opens: Callable[[], Store] = request.getfixturevalue(request.param)
    return opens


@pytest.mark.timeout(120 * TIMES)
def test_sqlite(sqlite: Callable[[], Store]) -> None:
    run_state_machine_as_test(lambda: StoreMachine(sqlite), settings=examples(20, steps=40))


@pytest.mark.timeout(120 * TIMES)
def test_postgresql(postgresql: Callable[[], Store]) -> None:
    run_state_machine_as_test(lambda: StoreMachine(postgresql), settings=examples(4, steps=40))


# -- that it would be seen ----------------------------------------------------------------------------------------
LOSE, BREAK = "BEGIN SELECT RAISE(IGNORE); END", "BEGIN UPDATE {} WHERE rowid = NEW.rowid; END"
FAULTS = {
    "a lease is not given back": ("holds .* is to hold", "BEFORE DELETE ON leases", LOSE),
    "another holds a device": (
        "holds .* is to hold",
        "AFTER INSERT ON leases WHEN NEW.expires_at IS NULL",
        BREAK.format("leases SET holder = 'kernel:9', expires_at = since"),
    ),
    "an attempt does not end": ("state: found", "BEFORE UPDATE OF exit_code ON attempts", LOSE),
    "an attempt lives on": (
        "state: found",
        "AFTER UPDATE OF ended_at ON attempts",
        BREAK.format("attempts SET state = 'running', ended_at = NULL"),
    ),
    "a move leaves no line": (
        "do not hang together",
        "BEFORE INSERT ON transitions WHEN NEW.before = 'queued'",
        LOSE,
    ),
    "a move is made that none may make": (
        "made a move from queued to running",
        "AFTER INSERT ON transitions WHEN NEW.after = 'starting'",
        BREAK.format("transitions SET after = 'running'"),
    ),
    "an end has no moment": (
        "its end is None",
        "AFTER UPDATE OF ended_at ON runs WHEN NEW.ended_at IS NOT NULL",
        BREAK.format("runs SET ended_at = NULL"),
    ),
    "an epoch stands still": ("has the epoch 0", "AFTER UPDATE OF epoch ON runs", BREAK.format("runs SET epoch = 0")),
    "a change number is given twice": (
        "a change number was given twice|the counter is at",
        "AFTER UPDATE OF value ON counters WHEN NEW.value % 3 = 0",
        BREAK.format("counters SET value = OLD.value"),
    ),
    "a key is forgotten": ("keys: found", "BEFORE INSERT ON submissions", LOSE),
    "bytes count twice": (
        "log: found",
        "AFTER UPDATE OF log_size ON attempts WHEN NEW.log_size > OLD.log_size",
        BREAK.format("attempts SET log_size = NEW.log_size + 1"),
    ),
    "an artifact is lost": ("artifacts: found", "BEFORE INSERT ON artifacts WHEN NEW.path = 'a'", LOSE),
    "points are lost": ("points: found", "BEFORE INSERT ON fresh_points", LOSE),
    "a removed run stays": ("DID NOT RAISE|removed", "BEFORE DELETE ON runs", LOSE),
    "a cancelled run is tried again": (
        "state: found",
        "AFTER UPDATE OF desired ON runs WHEN NEW.state IN ('starting', 'running')",
        BREAK.format("runs SET desired = 'finished'"),
    ),
}
"""What goes wrong in a store: what is to be said of it, and the trigger that does it."""


def walk(machine: StoreMachine) -> None:
    """Once through all that a store does, each step checked."""
    steps: list[Callable[[], object]] = [
        lambda: machine.submit("bob#1", "k1", SHAPES[0], True),
        lambda: machine.submit("bob#1", "k1", SHAPES[0], True),
        lambda: machine.append(first, "log", 0, 5),
        lambda: machine.append(first, "metrics", 0, 9),
        lambda: machine.keep(first, "a", "0" * 64),
        lambda: machine.checkpoint(first, 1),
        lambda: machine.hold("kernel:1", "bob#1", 1),
        lambda: machine.finish(first, BROKEN),
        lambda: machine.append(first, "log", 0, 5),
        lambda: machine.clock_moves(3600),
        lambda: claims.append(machine.claim(True)),
        lambda: claims.append(machine.claim(True)),
        lambda: [machine.cancel(claim.run_id, 0) for claim in claims],
        lambda: [machine.finish(claim, PREEMPTED) for claim in claims],
        machine.reopen,
        lambda: machine.remove(first.run_id),
        lambda: machine.follow("ann#1"),
    ]
    claims: list[Claim] = []
    first = machine.begin(SHAPES[4])
    machine.rows_are_sound()
    for step in steps:
        step()
        machine.rows_are_sound()
    assert len(claims) == 2


def test_a_walk_through_all_of_it(opened: Callable[[], Store]) -> None:
    machine = StoreMachine(opened)
    try:
        walk(machine)
        machine.everything_is_as_predicted()
    finally:
        machine.let_go()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_store_with_a_fault_is_found_out(sqlite: Callable[[], Store], fault: str) -> None:
    words, *trigger = FAULTS[fault]

    def broken() -> Store:
        store = sqlite()
        with store.database.write() as connection:
            connection.execute(text(" ".join(["CREATE TRIGGER fault", *trigger])))
        return store

    machine = StoreMachine(broken)
    try:
        with pytest.raises((AssertionError, pytest.fail.Exception), match=words):
            walk(machine)
    finally:
        machine.let_go()
