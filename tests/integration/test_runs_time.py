"""The time of a run is what its work took: not what the service was away, and not what a clock says that was set."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from atelier.agent.worktime import WorkTime
from tests.cli_driver import wait_for
from tests.service_driver import Service, service_over, write

WORK = """
    import time, atelier
    print("begun", flush=True)
    time.sleep(60 if atelier.current_run().attempt == 1 else 0)
"""


@pytest.fixture
def own() -> Iterator[Service]:
    with service_over() as place:
        yield place


def killed(own: Service, run_id: str) -> None:
    """The service has ended, and then the agent."""
    own.kill()
    for pid in own.agents(run_id):
        os.kill(pid, signal.SIGKILL)


def asked(own: Service, statement: str) -> list[tuple[float, ...]]:
    """What a statement gives on the database of a service that is not there."""
    with contextlib.closing(sqlite3.connect(own.home / "db/atelier.sqlite", timeout=20)) as database:
        rows = list(database.execute(statement))
        database.commit()
    return rows


def test_an_hour_without_the_service_takes_nothing_from_the_next_attempt(own: Service, tmp_path: Path) -> None:
    run_id = own.submit(write(tmp_path, train__py=WORK), timeout_s=600, retries=1)
    own.wait_log(run_id, "begun")
    killed(own, run_id)
    for column in ("created_at", "started_at", "last_seen_at"):
        asked(own, f"update attempts set {column} = datetime({column}, '-1 hour')")
    own.start()
    run = own.wait(run_id)
    assert [attempt.state for attempt in run.attempts] == ["lost", "succeeded"], run


def test_what_ran_while_the_service_was_away_is_counted(own: Service, tmp_path: Path) -> None:
    run_id = own.submit(write(tmp_path, train__py=WORK), timeout_s=600, retries=1)
    own.wait_log(run_id, "begun")
    own.kill()
    ((told_s,),) = asked(own, "select ran_s from attempts")
    note = own.attempt_folder(run_id) / "work-time"
    wait_for(lambda: (WorkTime(note).seconds or 0) > told_s + 2, "the work to go on")
    killed_at_s = WorkTime(note).seconds
    assert killed_at_s is not None
    for pid in own.agents(run_id):
        os.kill(pid, signal.SIGKILL)
    own.start()
    assert [attempt.state for attempt in own.wait(run_id).attempts] == ["lost", "succeeded"]
    own.stop()
    first_s, second_s = (row[0] for row in asked(own, "select ran_s from attempts order by n"))
    assert killed_at_s <= first_s < killed_at_s + 30
    assert 0 < second_s < 60
    own.start()


def test_an_order_that_a_dead_service_told_nobody_leaves_all_its_time(own: Service, tmp_path: Path) -> None:
    code = """
        import pathlib, time, atelier
        job = atelier.current_run()
        print("begun", flush=True)
        while not job.should_stop():
            time.sleep(0.05)
        time.sleep(2)
        pathlib.Path("tidy.txt").write_text("done")
    """
    run_id = own.submit(write(tmp_path, train__py=code))
    own.wait_log(run_id, "begun")
    own.kill()
    asked(own, "update runs set desired = 'cancelled'")
    asked(own, "update attempts set stop = 'cancel', stop_grace_s = 10, last_seen_at = datetime('now', '-1 hour')")
    own.start()
    assert own.wait(run_id).state == "cancelled"
    assert own.content(run_id, "tidy.txt") == b"done"
