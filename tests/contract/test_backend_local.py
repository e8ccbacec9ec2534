"""The local backend passes the suite of backends, with real agents and a real service behind them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import uvicorn

from atelier.bundle.snapshot import plan_bundle, write_bundle
from atelier.records import Run, RunSpec, Source
from atelier.service.app import create_app
from atelier.service.attempts import artifact_key
from atelier.service.backends import Key, Launch, LocalBackend, Sign
from atelier.service.callers import Caller
from atelier.service.handlers.context import Service
from atelier.service.serving import Plan, _Idle, assemble
from atelier.service.store import Quota
from atelier.storage.paths import upload_key
from atelier.testing.backends import BackendContract, do, eventually
from atelier.works.finding import find_work
from tests.cli_driver import wait_for
from tests.service_driver import HOMES, SETTINGS, command_of, environment_of, left_behind, lives, pids
from tests.synced import Synced

CALLER = Caller("ann", "ann#1", is_local=True)


@dataclass
class LocalRig:
    """A service over a home, whose HTTP runs in a thread and whose reconciler stands still."""

    home: Path
    service: Service = field(init=False)
    server: uvicorn.Server | None = None
    thread: threading.Thread | None = None
    keys: list[Key] = field(default_factory=list)
    backends: list[LocalBackend] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.home / "atelier.yaml").write_text(SETTINGS)
        made = assemble(Plan(self.home), self.socket, "token", _Idle(time.monotonic()))
        idle = replace(made.reconciler, backend=LocalBackend(self.home / "unused", {}))
        self.service = replace(made, reconciler=idle)
        self.restart()

    @property
    def socket(self) -> Path:
        return self.home / "service.sock"

    @property
    def backend(self) -> LocalBackend:
        return self.backends[-1]

    def restart(self) -> None:
        self.backends.append(LocalBackend(self.home, {"socket": str(self.socket)}))

    def open_service(self) -> None:
        config = uvicorn.Config(create_app(self.service), lifespan="off", log_config=None, access_log=False)
        self.server = uvicorn.Server(config)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.socket))
        listener.listen()

        def serve() -> None:
            assert self.server is not None
            with listener:
                self.server.run(sockets=[listener])

        self.thread = threading.Thread(target=serve)
        self.thread.start()

    def close_service(self) -> None:
        assert self.server is not None
        assert self.thread is not None
        self.server.should_exit = self.server.force_exit = True
        self.thread.join(timeout=20)
        assert not self.thread.is_alive()
        self.socket.unlink(missing_ok=True)
        self.server = None

    def claim(self, code: str) -> Launch:
        folder = self.home / "code"
        folder.mkdir(exist_ok=True)
        (folder / "train.py").write_text(code)
        plan = plan_bundle(find_work(str(folder / "train.py"), folder), limit_bytes=1 << 20)
        digest = write_bundle(plan, self.home / "bundle")
        self.service.blobs.put_file(upload_key(CALLER.owner, digest), self.home / "bundle")
        spec = RunSpec(work=plan.work, bundle=digest, machine="tiny")
        run, _ = self.service.runs.submit(CALLER, spec, Source(), None)
        claim, _ = self.service.store.queue.claim(self.backend.capacity(), Quota())
        assert claim is not None
        self.keys.append(Key(run.id, claim.n))
        return Launch(self.keys[-1], run.owner, claim.token, claim.devices)

    def run(self, key: Key) -> Run:
        return self.service.store.runs.get(key.run_id)

    def log(self, key: Key) -> str:
        size = self.service.store.streams.size(key.run_id, key.n, "log")
        return self.service.streams.read(key.run_id, key.n, "log", 0, size).decode()

    def kept(self, key: Key) -> dict[str, bytes]:
        kept = self.service.store.artifacts.of_run(key.run_id)
        return {each.path: self.service.blobs.read(artifact_key(key.run_id, each.attempt, each)) for each in kept}

    def living(self, key: Key) -> int:
        mark = f"ATELIER_ATTEMPT_KEY={key.run_id}/{key.n}".encode()
        return sum(1 for pid in pids() if mark in environment_of(pid) and lives(pid))

    def kill_agent(self, key: Key) -> None:
        for pid in pids():
            if b"atelier.agent\0" + os.fsencode(self.backend.folder(key)) in command_of(pid):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        for key in self.keys:
            do(self.backend.kill(key))
            for backend in self.backends:
                wait_for(lambda b=backend, k=key: do(b.observe([k]))[k] is not Sign.ALIVE, f"the end of {key}")
        self.close_service()
        self.service.store.close()


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalRig]:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    home = Path(tempfile.mkdtemp(prefix="atl-"))
    HOMES.append(home)
    place = LocalRig(home)
    place.open_service()
    yield place
    place.close()
    assert left_behind() == []
    shutil.rmtree(home)


class TestLocalBackend(BackendContract):
    @pytest.fixture
    def rig(self, rig: LocalRig) -> LocalRig:
        return rig

    def test_only_its_owner_may_look_into_an_attempt(self, rig: LocalRig) -> None:
        key = self.begun(rig, "import time\nprint('begun', flush=True)\ntime.sleep(60)")
        folder = rig.backend.folder(key)
        for path in (folder, folder / "token", folder / "orders.json"):
            assert path.stat().st_mode & 0o077 == 0, path

    def test_what_an_attempt_begins_with_outlives_a_loss_of_power(
        self, rig: LocalRig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced = Synced(monkeypatch)
        folder = rig.backend.folder(self.begun(rig, "import time\nprint('begun', flush=True)\ntime.sleep(60)"))
        for path in (folder / "token", folder / "orders.json"):
            assert synced.outlives(path), path

    def test_an_agent_inherits_no_secret(self, rig: LocalRig, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "s3cret")
        monkeypatch.setenv("ATELIER_HUB_TOKEN_FILE", "/s3cret")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
        key = self.begun(
            rig, "import os, time\nprint(sorted(os.environ.items()))\nprint('begun', flush=True)\ntime.sleep(60)"
        )
        assert "s3cret" not in rig.log(key)

    @pytest.mark.parametrize("how", ["killed", "ended"])
    def test_what_cleared_its_environment_ends_too(self, rig: LocalRig, how: str) -> None:
        """While its agent lives; what did so and outlives a killed agent is not found any more."""
        tag = f"escapist-{rig.home.name}"
        code = f"""
            import os, sys, time
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    os.closerange(0, 3)
                    os.execve(sys.executable, [sys.executable, "-c", "import time; time.sleep(60)", {tag!r}], {{}})
                os._exit(0)
            time.sleep(0.3)
            print("begun", flush=True)
            time.sleep({60 if how == "killed" else 0})
        """

        def escapists() -> list[int]:
            return [pid for pid in pids() if tag.encode() in command_of(pid).split(b"\0") and lives(pid)]

        key = self.begun(rig, textwrap.dedent(code))
        if how == "killed":
            assert len(escapists()) == 1
            do(rig.backend.kill(key))
        eventually("the process without environment to end", lambda: not escapists())
