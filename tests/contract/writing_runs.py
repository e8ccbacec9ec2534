"""Services that don't go by themselves, and runs that write all that a run can write, for the tests of backups."""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from atelier.records import AttemptState, ModelFile
from atelier.service.attempts import AgentCaller, FileReport, FinishReport
from atelier.service.backups import restore
from atelier.service.handlers.context import Service
from atelier.service.serving import Plan, _Idle, assemble
from atelier.service.store import Capacity, Quota
from atelier.storage import FilesystemBlobs, RunPaths
from atelier.storage.paths import upload_key
from atelier.testing.samples import new_run
from tests.service_driver import SETTINGS

CLAIMS = threading.Lock()


def service_of(home: Path) -> Service:
    """The parts of a service over a home, none of which goes by itself."""
    home.mkdir(exist_ok=True)
    if not (home / "atelier.yaml").exists():
        (home / "atelier.yaml").write_text(SETTINGS)
    return assemble(Plan(home), home / "service.sock", "token", _Idle(time.monotonic()))


@contextmanager
def dies_at_copy(nth: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have what is done inside die when it copies its nth blob."""
    copies, copy = 0, FilesystemBlobs.copy

    def copy_or_die(self: FilesystemBlobs, source: str, target: str) -> None:
        nonlocal copies
        copies += 1
        if copies == nth:
            raise KeyboardInterrupt
        copy(self, source, target)

    with monkeypatch.context() as patch:
        patch.setattr(FilesystemBlobs, "copy", copy_or_die)
        with pytest.raises(KeyboardInterrupt):
            yield


@contextmanager
def restored(folder: Path, home: Path) -> Iterator[Service]:
    """A home of a backup, and its service, with what that does at its start for runs that have ended."""
    restore(folder, home, replace=False)
    made = service_of(home)
    try:
        assert made.store.runs.live_attempts() == []
        for run in made.store.runs.page("ann#1", states=(), limit=500, before=None):
            if run.state.is_final:
                made.attempts.catch_up(run.id)
        yield made
    finally:
        made.store.close()


def begin(service: Service, *, retries: int = 0) -> AgentCaller:
    """The agent of a run that has just started; its code is whatever its id is."""
    code = os.urandom(20)
    new = new_run()
    spec = new.spec.model_copy(update={"bundle": hashlib.sha256(code).hexdigest(), "retries": retries})
    run = service.store.runs.submit(replace(new, spec=spec))[0]
    service.blobs.write(RunPaths(run.id).bundle, code)
    with CLAIMS:
        service.store.runs.queue(run.id)
        claim, _ = service.store.queue.claim(Capacity(), Quota())
    assert claim is not None
    agent = service.attempts.caller(f"run {claim.token}")
    service.attempts.started(agent, None, "numpy==2\n")
    return agent


def ended(service: Service) -> str:
    """The id of a run that has ended."""
    return service.attempts.finish(begin(service), FinishReport(state=AttemptState.SUCCEEDED)).id


def keep(service: Service, agent: AgentCaller, path: str, data: bytes, kind: str = "saved") -> None:
    """Store a file as an agent does, and have it noted."""
    sha256 = hashlib.sha256(data).hexdigest()
    file = FileReport.model_validate({"path": path, "size_bytes": len(data), "sha256": sha256, "kind": kind})
    send(service, service.attempts.place(agent, file), data)
    service.attempts.keep(agent, file)


def send(service: Service, url: str, data: bytes) -> None:
    """Send bytes to where an agent was told to."""
    key = Path(unquote(urlsplit(url).path)).relative_to(service.blobs.root.resolve())  # type: ignore[attr-defined]
    service.blobs.write(key.as_posix(), data)


def key_of(agent: AgentCaller, path: str, data: bytes) -> str:
    """Where an artifact lies."""
    return RunPaths(agent.run_id).artifact(agent.n, path, sha256=hashlib.sha256(data).hexdigest())


def checkpoint(service: Service, agent: AgentCaller, step: int, data: bytes) -> None:
    """Publish a checkpoint as an agent does."""
    report = {"path": "state.pt", "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    send(service, service.attempts.place_checkpoint(agent, step, "state.pt", copy=1), data)
    service.attempts.keep_checkpoint(agent, step, [FileReport.model_validate(report)], copy=1)


def publish(service: Service, agent: AgentCaller, data: bytes) -> None:
    """Register a model as an agent does."""
    sha256 = hashlib.sha256(data).hexdigest()
    service.blobs.write(upload_key(agent.owner, sha256), data)
    service.attempts.publish(agent, "digits", {}, [ModelFile(path="model.onnx", size_bytes=len(data), sha256=sha256)])


def live(service: Service, seed: int, ending: threading.Event) -> None:
    """Runs, one after the other, that write all that a run can write, again and again; some are removed."""
    dice = random.Random(seed)
    while not ending.is_set():
        agent, log, points = begin(service), 0, 0
        for step in range(dice.randrange(1, 15)):
            line = f"step {step} {'x' * dice.randrange(200)}\n".encode()
            log = service.attempts.append(agent, "log", log, line)
            point = json.dumps({"step": step, "t": time.time(), "values": {"loss": dice.random()}}).encode() + b"\n"
            points = service.attempts.append(agent, "metrics", points, point)
            keep(service, agent, "train.ipynb", dice.randbytes(50), kind="notebook")
            keep(service, agent, "latest.bin", dice.randbytes(30))
            keep(service, agent, f"plots/{step}.png", dice.randbytes(10))
            if step % 4 == 0:
                checkpoint(service, agent, step, dice.randbytes(40))
        if dice.random() < 0.3:
            publish(service, agent, dice.randbytes(25))
        run = service.attempts.finish(agent, FinishReport(state=AttemptState.SUCCEEDED))
        if dice.random() < 0.3:
            service.runs.remove(run)
