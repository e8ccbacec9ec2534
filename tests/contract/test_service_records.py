"""A run's ``run.json`` says in the end what the database says, wherever a crash or a full disk came between the two."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atelier.records import AttemptState, Reason
from atelier.service import reconciler
from atelier.service.attempts import AgentCaller, FinishReport
from atelier.service.handlers.context import Service
from atelier.service.serving import Plan, _Idle, assemble
from atelier.service.store import Outcome
from atelier.storage import BlobStore, FilesystemBlobs, RunPaths
from atelier.testing.samples import DONE, finished, queued, running
from tests.service_driver import SETTINGS

REPORT = FinishReport(state=AttemptState.SUCCEEDED, exit_code=0)


class FullForRecords(FilesystemBlobs):
    """A disk that is full whenever a record is to be written."""

    def write(self, key: str, data: bytes) -> None:
        if key.endswith("run.json"):
            raise OSError(28, "No space left on device")
        super().write(key, data)


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """The parts of a service, none of which goes by itself."""
    monkeypatch.setattr(reconciler, "RECORD_GRACE_S", 0.0, raising=False)
    (tmp_path / "atelier.yaml").write_text(SETTINGS)
    made = assemble(Plan(tmp_path), tmp_path / "service.sock", "token", _Idle(time.monotonic()))
    yield made
    made.store.close()


def full_disk(service: Service) -> BlobStore:
    blobs = service.blobs
    assert isinstance(blobs, FilesystemBlobs)
    return FullForRecords(blobs.root)


def record(service: Service, run_id: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(service.blobs.read(RunPaths(run_id).record))
    return told


def agent(service: Service) -> AgentCaller:
    """The agent of a run that is running, whose record says so."""
    claim = running(service.store)
    service.attempts.write_record(claim.run_id)
    return AgentCaller(claim.run_id, claim.n, "ann#1", "ann#1", 1.0, 2**30)


def test_an_end_that_is_told_again_is_recorded(service: Service) -> None:
    caller = agent(service)
    broken = replace(service.attempts, blobs=full_disk(service))
    assert broken.finish(caller, REPORT).state == "succeeded"
    assert record(service, caller.run_id)["state"] == "running"
    assert service.attempts.finish(caller, REPORT).state == "succeeded"
    assert record(service, caller.run_id) == service.store.runs.get(caller.run_id).model_dump(mode="json")


def test_an_end_that_a_crash_cut_from_its_record_is_recorded(service: Service) -> None:
    caller = agent(service)
    service.store.runs.finish(caller.run_id, caller.n, DONE)
    never = finished(service.store, outcome=Outcome(AttemptState.LOST, Reason.AGENT_LOST))
    expired = queued(service.store)
    service.store.runs.expire(expired)
    asyncio.run(service.reconciler.step())
    for run_id, state in ((caller.run_id, "succeeded"), (never, "lost"), (expired, "timed_out")):
        assert record(service, run_id)["state"] == state
        assert record(service, run_id) == service.store.runs.get(run_id).model_dump(mode="json")


def test_what_is_recorded_is_written_once(service: Service) -> None:
    caller = agent(service)
    service.attempts.finish(caller, REPORT)
    service.blobs.delete(RunPaths(caller.run_id).record)
    asyncio.run(service.reconciler.step())
    assert not service.blobs.exists(RunPaths(caller.run_id).record)
