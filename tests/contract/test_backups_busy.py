"""A backup of a busy home holds all that it tells of: also what runs replace and owners remove while it is made."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from atelier.records import AttemptState, RunState
from atelier.service.attempts import FinishReport
from atelier.service.backups import back_up, making, verify
from atelier.service.backups.objects import Objects
from atelier.service.handlers.context import Service
from atelier.storage import RunPaths
from atelier.storage.paths import model_key
from atelier.testing.invariants import broken
from tests.cli_driver import wait_for
from tests.contract.writing_runs import begin, checkpoint, keep, live, publish, restored, service_of

SIZE_BYTES = 200_000


def at_each_file(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Have something done whenever a backup takes a file: as if that took long."""
    link, is_within = Objects.link, threading.local()

    def slow(self: Objects, *of: object) -> object:
        if not getattr(is_within, "yes", False):
            is_within.yes = True
            do()
            is_within.yes = False
        return link(self, *of)  # type: ignore[arg-type]

    monkeypatch.setattr(Objects, "link", slow)


def filled(service: Service, runs: int) -> None:
    """Runs that have ended, each with a file of its own."""
    for n in range(runs):
        agent = begin(service)
        keep(service, agent, "out.bin", f"of {n}".encode())
        service.attempts.finish(agent, FinishReport(state=AttemptState.SUCCEEDED))


def test_a_live_runs_checkpoints_are_in_it_however_long_it_takes(
    service: Service, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each file that is taken the run publishes a checkpoint, of which three are kept, and a file anew."""
    agent, step = begin(service), 0
    filled(service, 5)

    def go_on() -> None:
        nonlocal step
        step += 1
        checkpoint(service, agent, step, f"state {step}".encode())
        keep(service, agent, "latest.bin", f"latest {step}".encode())

    for _ in range(3):
        go_on()
    copies, copy = [], making.copy_sqlite
    monkeypatch.setattr(making, "copy_sqlite", lambda *of: copies.append(of[1].name) or copy(*of))
    at_each_file(monkeypatch, go_on)
    made = back_up(home, tmp_path / "backup")
    assert made.missing == []
    assert copies.count("atelier.sqlite") == 1, "what may go at any moment was not taken first"
    assert step > 9
    assert verify(tmp_path / "backup")[1] == []
    with restored(tmp_path / "backup", tmp_path / "other") as other:
        kept = other.store.artifacts.checkpoints(agent.run_id)
        assert [one.step for one in kept] == [3, 2, 1], "as it was when the database was copied"
        assert other.store.artifacts.get(agent.run_id, "latest.bin").size_bytes == len("latest 3")
    assert broken(tmp_path / "other") == []


def test_what_goes_all_the_time_is_left_out_of_it(
    service: Service, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While files are taken checkpoints are replaced, and runs and versions of a model removed: no copy is of now."""
    agent, step, takes, take = begin(service), 0, 0, making._Making._take
    filled(service, 25)
    for n in range(25):
        publish(service, agent, f"model {n}".encode())
    ids = sorted(run.id for run in service.store.runs.page("ann#1", states=(), limit=500, before=None))
    ids.remove(agent.run_id)
    versions = list(range(1, 26))
    service.store.models.set_alias("ann#1", "digits", "production", 25)

    def go_on() -> None:
        nonlocal step
        step += 1
        checkpoint(service, agent, step, f"state {step}".encode())
        if len(ids) > 2:
            service.runs.remove(service.store.runs.get(ids.pop()))
            service.models.remove("ann#1", "digits", versions.pop())

    def go_on_now_and_then(self: making._Making, each: making.Wanted | making.WantedStream) -> bool:
        nonlocal takes
        takes += 1
        if takes % 12 == 0:
            go_on()
        return take(self, each)

    monkeypatch.setattr(making, "MOST_HELD", 0)
    monkeypatch.setattr(making, "MOST_COPIES", 2)
    monkeypatch.setattr(making._Making, "_take", go_on_now_and_then)
    made = back_up(home, tmp_path / "backup")
    assert made.missing == [], "what was removed meanwhile is told of as lacking"
    assert verify(tmp_path / "backup")[1] == []
    with restored(tmp_path / "backup", tmp_path / "other") as other:
        found = {run.id for run in other.store.runs.page("ann#1", states=(), limit=500, before=None)}
        assert {agent.run_id, *ids} <= found
        assert set(versions) <= {one.version for one in other.store.models.versions("ann#1", "digits")}
    assert broken(tmp_path / "other") == []


def test_what_is_not_there_is_told_of_when_much_else_goes(
    service: Service, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = begin(service)
    publish(service, agent, b"model")
    filled(service, 30)
    lacking = f"{model_key('ann#1', 'digits', 1)}/model.onnx"
    service.blobs.delete(lacking)
    ids = sorted(
        run.id for run in service.store.runs.page("ann#1", states=(RunState.SUCCEEDED,), limit=500, before=None)
    )
    monkeypatch.setattr(making, "MOST_COPIES", 2)
    at_each_file(monkeypatch, lambda: ids and service.runs.remove(service.store.runs.get(ids.pop())))
    assert back_up(home, tmp_path / "backup").missing == [lacking]
    assert verify(tmp_path / "backup")[1] == []


def test_backups_by_the_command_while_runs_save_checkpoints_and_others_go(
    service: Service, home: Path, tmp_path: Path
) -> None:
    """As an administrator makes and looks at one: processes of their own."""
    ending, dice = threading.Event(), random.Random(3)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def train() -> int:
        agent, step = begin(service), 0
        while not ending.is_set():
            step += 1
            checkpoint(service, agent, step, dice.randbytes(SIZE_BYTES))
            keep(service, agent, "latest.bin", dice.randbytes(SIZE_BYTES))
        service.attempts.finish(agent, FinishReport(state=AttemptState.SUCCEEDED))
        return step

    def call(of: Path, *command: str) -> str:
        told = subprocess.run(
            [sys.executable, "-m", *command],
            env={**environ, "ATELIER_HOME": str(of)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
        )
        assert told.returncode == 0, told.stdout
        return told.stdout

    with ThreadPoolExecutor(4) as pool:
        training = [pool.submit(train) for _ in range(2)]
        others = [pool.submit(live, service, seed, ending) for seed in range(2)]
        try:
            wait_for(lambda: len(service.store.runs.live_attempts()) >= 3, "runs at work")
            for n in range(2):
                time.sleep(0.5)
                call(home, "atelier", "backup", str(tmp_path / "backup"))
                call(tmp_path / f"other-{n}", "atelier", "restore", str(tmp_path / "backup"))
        finally:
            ending.set()
            for each in others:
                each.result(timeout=60)
            assert min(each.result(timeout=60) for each in training) > 6, "hardly any checkpoint was replaced"
    for n in range(2):
        other = service_of(tmp_path / f"other-{n}")
        for run in other.store.runs.page("ann#1", states=(), limit=500, before=None):
            other.attempts.catch_up(run.id)
            for one in other.store.artifacts.checkpoints(run.id):
                assert other.blobs.exists(
                    f"{RunPaths(run.id).checkpoint(one.attempt, one.step, copy=one.copy)}/state.pt"
                )
        other.store.close()
        assert "0 times broken" in call(home, "atelier.testing.invariants", str(tmp_path / f"other-{n}"))
