"""Drives a real run service, as a process over a home of its own, and the runs in it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx

from atelier.bundle.snapshot import plan_bundle, write_bundle
from atelier.client import Address, Client
from atelier.client.address import live_address
from atelier.client.transport import Transport
from atelier.following import read_log
from atelier.records import Run, RunState
from atelier.wire import API
from atelier.works.finding import find_work
from tests.cli_driver import wait_for

HOMES: list[Path] = []
"""Every home that this session has made; nothing may live in one of them at its end."""

SETTINGS = f"""
catalog:
  images: [{{name: plain, python: {sys.executable}}}]
  machines:
    - {{name: tiny, cpu: 20m, memory: 256Mi}}
    - {{name: gpu, cpu: 20m, memory: 256Mi, accelerators: {{nvidia.com/gpu: 1}}}}
    - {{name: gpus, cpu: 20m, memory: 256Mi, accelerators: {{nvidia.com/gpu: 2}}}}
    - {{name: whole, cpu: {len(os.sched_getaffinity(0))}, memory: 256Mi}}
    - {{name: huge, cpu: 4000, memory: 256Mi}}
"""
IMPATIENT = SETTINGS + "limits: {patience: 2s}\n"
"""Settings of a service whose runs don't wait for long while it fails."""

SERVE = "from atelier.service.__main__ import main; sys.exit(main())"
NOT_PASSED = ("ATELIER_URL", "ATELIER_TOKEN_FILE", "ATELIER_HOME", "ATELIER_IDLE_S", "ATELIER_TEST_GPUS")


class Process(Protocol):
    """What is asked of a process of a service, as `subprocess.Popen` has it."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, number: int, /) -> None: ...


class Starter(Protocol):
    """Who starts services faster than a new Python does."""

    def start(self, argv: Sequence[str], environ: Mapping[str, str], log: Path, folder: Path) -> Process: ...


@dataclass
class Service:
    """A run service that can be started, killed and started again.

    ``options`` go to ``python -m atelier.service`` besides ``--home``; ``more`` goes into its environment;
    ``agents_python`` is a program by which it starts agents instead of this Python; without one, its processes are
    left to ``starter``, if there is one.
    """

    home: Path
    settings: str = SETTINGS
    options: tuple[str, ...] = ()
    more: Mapping[str, str] = field(default_factory=dict)
    process: Process | None = None
    agents_python: Path | None = None
    starter: Starter | None = None
    _client: Client | None = None

    @property
    def temporary(self) -> Path:
        """Where its agents make their temporary files."""
        return self.home / "tmp"

    @property
    def environ(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in NOT_PASSED}
        return {**kept, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(self.temporary), **self.more}

    def start(self) -> Service:
        """Start it and wait until it answers."""
        self.temporary.mkdir(parents=True, exist_ok=True)
        (self.home / "atelier.yaml").write_text(self.settings)
        self.process = self.spawn(*self.options)
        wait_for(self._answers, f"the service of {self.home} to answer", timeout_s=30)
        return self

    def spawn(self, *options: str) -> Process:
        """A process of this home's service; nothing is waited for."""
        argv, said = ["--home", str(self.home), *options], self.home / "service.log"
        if self.starter is not None and self.agents_python is None:
            return self.starter.start(argv, self.environ, said, self.home)
        with said.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *self._program, *argv],
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.home,
            )

    @property
    def _program(self) -> list[str]:
        if self.agents_python is None:
            return ["-m", "atelier.service"]
        return ["-c", f"import sys; sys.executable = {str(self.agents_python)!r}; {SERVE}"]

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the service ended with {self.process.returncode}:\n{self.service_log}"
        return live_address(self.home) is not None

    @property
    def service_log(self) -> str:
        return (self.home / "service.log").read_text(errors="replace")

    @property
    def note(self) -> dict[str, Any]:
        """What it tells clients of itself."""
        told: dict[str, Any] = json.loads((self.home / "run/service.json").read_text())
        return told

    @property
    def token(self) -> str:
        return (self.home / "secrets/service_user_token").read_text().strip()

    @property
    def address(self) -> Address:
        """Where it answers the user whose home this is."""
        return Address("http://atelier", self.token, self.note["socket"])

    @property
    def client(self) -> Client:
        """A client of the user whose home this is."""
        if self._client is None:
            self._client = Client.at(self.address)
        return self._client

    def talk_by(self, transport: Transport) -> None:
        """Have the client go another way to the service."""
        self._client = Client(transport)

    @property
    def http(self) -> httpx.Client:
        """Plain HTTP over its socket, with the token of the user whose home this is."""
        transport = httpx.HTTPTransport(uds=self.note["socket"], verify=False)
        headers = {"Authorization": f"token {self.token}"}
        return httpx.Client(
            transport=transport, base_url="http://atelier", headers=headers, timeout=30, trust_env=False, verify=False
        )

    def get(self, path: str, **options: Any) -> httpx.Response:
        """GET a resource below the API's prefix."""
        with self.http as http:
            return http.get(API + path, **options)

    # -- its end --------------------------------------------------------------------------------------------------
    def kill(self) -> None:
        """End it as a crash does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=10)
        self.process = None

    def stop(self) -> int:
        """End it as a supervisor does; its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=20)
        self.process = None
        return code

    def clean_up(self) -> None:
        """Cancel what still runs, wait until nothing is left of it, and stop."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        for record in self.client.newest_runs(limit=500):
            if not RunState(record["state"]).is_final:
                self.client.cancel(record["id"], now=True)
        wait_for(
            lambda: not list(self.home.glob("run/attempts/*/*")), f"the last attempt in {self.home} to be cleaned up"
        )
        assert self.stop() == 0
        self.client.close()
        left = [path.name for path in self.temporary.iterdir()] if self.temporary.exists() else []
        assert left == [], f"temporary files were left behind: {left}"

    # -- runs -----------------------------------------------------------------------------------------------------
    def submit(
        self,
        work: Path | str,
        params: Mapping[str, Any] | None = None,
        *,
        cwd: Path | None = None,
        key: str | None = None,
        **spec: Any,
    ) -> str:
        """Capture and submit a work; the run's id. The machine is ``tiny`` unless given."""
        plan = plan_bundle(find_work(str(work), cwd or Path("/")), limit_bytes=100 << 20)
        with tempfile.TemporaryDirectory() as folder:
            bundle = Path(folder) / "bundle.tar.zst"
            digest = write_bundle(plan, bundle)
            self.client.put_bundle(bundle, digest)
        asked = {
            "work": plan.work.model_dump(mode="json"),
            "bundle": digest,
            "params": dict(params or {}),
            "machine": "tiny",
        }
        return str(self.client.submit({**asked, **spec}, idempotency_key=key)["id"])

    def ids(self) -> list[str]:
        """Ids of its user's runs, newest first."""
        return [record["id"] for record in self.client.newest_runs(limit=500)]

    def run(self, run_id: str) -> Run:
        """The whole record."""
        return Run.model_validate(self.client.run(run_id))

    def wait(self, run_id: str, *states: str, patience_s: float = 40) -> Run:
        """The record once the run is in one of these states, or final when none is given."""
        wanted = {RunState(state) for state in states}
        newest = self.run(run_id)

        def there() -> bool:
            nonlocal newest
            newest = self.run(run_id)
            missed = newest.state.is_final and wanted and newest.state not in wanted
            assert not missed, f"{run_id} ended otherwise: {newest!r}\n{self.log(run_id)}"
            return newest.state in wanted or (not wanted and newest.state.is_final)

        wait_for(there, f"{run_id} to be {' or '.join(states) or 'final'}", timeout_s=patience_s)
        return newest

    def finish(
        self, work: Path | str, params: Mapping[str, Any] | None = None, *, patience_s: float = 40, **more: Any
    ) -> Run:
        """Submit a work and wait for its end."""
        return self.wait(self.submit(work, params, **more), patience_s=patience_s)

    def log(self, run_id: str, attempt: int | None = None) -> str:
        """The whole log of an attempt."""
        return "".join(piece.text for piece in read_log(self.client, run_id, attempt=attempt))

    def wait_log(self, run_id: str, text: str, *, attempt: int | None = None, timeout_s: float = 30) -> str:
        """The log once it holds a text."""
        wait_for(lambda: text in self.log(run_id, attempt), f"{text!r} in the log of {run_id}", timeout_s=timeout_s)
        return self.log(run_id, attempt)

    def artifacts(self, run_id: str) -> dict[str, dict[str, Any]]:
        """Path → artifact."""
        return {artifact["path"]: artifact for artifact in self.client.artifacts(run_id)}

    def content(self, run_id: str, path: str) -> bytes:
        """The bytes of an artifact."""
        answer = self.get(f"/runs/{run_id}/artifacts/{path}")
        assert answer.status_code == 200, answer.text
        return answer.content

    def attempt_folder(self, run_id: str, n: int = 1) -> Path:
        """Where an attempt lives on this machine."""
        return self.home / "run/attempts" / run_id / str(n)

    def agents(self, run_id: str, n: int = 1) -> list[int]:
        """Ids of the processes that supervise an attempt."""
        folder = os.fsencode(self.attempt_folder(run_id, n))
        return [pid for pid in pids() if b"atelier.agent\0" + folder in command_of(pid)]

    def of_attempt(self, run_id: str, n: int = 1) -> list[int]:
        """Ids of all processes that bear the mark of an attempt."""
        mark = f"ATELIER_ATTEMPT_KEY={run_id}/{n}".encode()
        return [pid for pid in pids() if mark in environment_of(pid)]


@contextmanager
def service_over(home: Path | None = None, **fields: Any) -> Iterator[Service]:
    """A service over a new home, which is removed at the end; what it left behind is an error."""
    folder = Path(tempfile.mkdtemp(prefix="atl-"))
    place = Service(home or folder, **fields)
    HOMES.append(place.home)
    place.home.mkdir(parents=True, exist_ok=True)
    try:
        yield place.start()
        place.clean_up()
    except BaseException:
        _end_all(place)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _end_all(place: Service) -> None:
    """After a failed test: end its service first, and all that would wait for it for ever."""
    if place.process is not None:
        place.process.send_signal(signal.SIGKILL)
        place.process.wait(timeout=10)
    for pid in _processes_of(place.home):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def write(folder: Path, **files: str) -> Path:
    """A folder with files, whose names are given with ``__`` for the last dot; the first one's path."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / ".".join(name.rsplit("__", 1)) for name in files]
    for path, text in zip(paths, files.values(), strict=True):
        path.write_text(textwrap.dedent(text))
    return paths[0]


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def environment_of(pid: int) -> list[bytes]:
    """The environment of a living process; empty for one that is gone, a zombie, or somebody else's."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def command_of(pid: int) -> bytes:
    """The command line of a living process, its words parted by NUL; empty for one that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def of_control_groups(run_ids: Iterable[str]) -> list[Path]:
    """Folders of the control groups that attempts of these runs have."""
    places = (Path(path) for path, _, _ in os.walk("/sys/fs/cgroup") if os.path.basename(path).startswith("atelier-"))
    return [place for place in places if any(f"-{run_id}-" in place.name for run_id in run_ids)]


def lives(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _processes_of(home: Path) -> list[int]:
    """Ids of processes that a home's path appears in: in the command line or the environment, but as TMPDIR."""
    name, found = os.fsencode(home), []
    for pid in pids():
        words = [command_of(pid), *environment_of(pid)]
        if pid != os.getpid() and any(name in word and not word.startswith(b"TMPDIR=") for word in words):
            found.append(pid)
    return found


def left_behind() -> list[str]:
    """Processes and sockets that belong to homes of this session."""
    found = []
    sockets = Path("/proc/net/unix").read_bytes().splitlines()
    for home in HOMES:
        found += [f"process {pid}: {command_of(pid)!r}" for pid in _processes_of(home)]
        found += [f"socket {line.split()[-1]!r}" for line in sockets if os.fsencode(home) in line]
    return found
