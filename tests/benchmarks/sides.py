"""The two sides of a comparison: our service and server, the peers' Jupyter Server, each in its own environment."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import httpx

from atelier.client import Client
from tools.peers import peers_folder
from tools.plan import ROOT

START_TIMEOUT_S = 60.0


class Server:
    """A Jupyter Server on a loopback port, by HTTP."""

    def __init__(self, program: Path, root: Path, environ: dict[str, str], *options: str) -> None:
        self._token, self._port = secrets.token_hex(16), free_port()
        argv = [str(program), f"--port={self._port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={root}"]
        argv += [f"--IdentityProvider.token={self._token}", "--no-browser", "--allow-root", *options]
        with (root.parent / f"{root.name}.log").open("wb") as log:
            self.process = subprocess.Popen(argv, env=environ, stdout=log, stderr=log, cwd=root)
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{self._port}", headers={"Authorization": f"token {self._token}"}, timeout=120
        )
        wait_for(self._answers, START_TIMEOUT_S, f"{program.name} to answer")

    def _answers(self) -> bool:
        try:
            return self.http.get("/api/status").status_code == 200
        except httpx.TransportError:
            return False

    def get(self, path: str, /, **query: Any) -> Any:
        """The JSON of a GET."""
        answer = self.http.get(path, params=query)
        answer.raise_for_status()
        return answer.json()

    def post(self, path: str, body: Any) -> Any:
        """The JSON of a POST."""
        answer = self.http.post(path, json=body)
        answer.raise_for_status()
        return answer.json()

    def close(self) -> None:
        self.http.close()
        self.process.terminate()
        self.process.wait(timeout=30)


class Sides:
    """Everything that rows measure with; started when first needed, ended together."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.peers = peers_folder() / "bin"
        self.python = self.peers / "python"
        """The interpreter of the kernels of both sides."""
        self._stack = contextlib.ExitStack()
        self._made: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self._stack.close()

    def place(self, name: str) -> Path:
        """A folder for files of this name."""
        path = self.folder / name
        path.mkdir(exist_ok=True)
        return path

    @property
    def client(self) -> Client:
        """A client of a fresh run service of ours."""
        return self._once("client", self._start_service)

    def service_pid(self) -> int:
        """The process of our service."""
        _ = self.client
        return int(json.loads((self.folder / "home/run/service.json").read_text())["pid"])

    def _start_service(self) -> Client:
        os.environ["ATELIER_HOME"] = str(self.folder / "home")
        os.environ.pop("ATELIER_URL", None)
        client = Client.find()
        client.catalog()
        pid = int(json.loads((self.folder / "home/run/service.json").read_text())["pid"])
        self._stack.callback(lambda: end(pid))
        return client

    @property
    def our_server(self) -> Server:
        """JupyterLab's server with our extension."""
        program = ROOT / ".venv/bin/jupyter-server"
        _ = self.client
        return self._once(
            "our_server", lambda: self._server(program, "ours", "--ServerApp.jpserver_extensions=atelier.server=True")
        )

    @property
    def peer_server(self) -> Server:
        """The peers' Jupyter Server, with jupyter-scheduler."""
        return self._once("peer_server", lambda: self._server(self.peers / "jupyter-server", "peer"))

    def _server(self, program: Path, name: str, *options: str) -> Server:
        home = self.place(f"{name}-home")
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("JUPYTER", "XDG"))}
        environ |= {"HOME": str(home), "PATH": f"{program.parent}:{os.environ['PATH']}"}
        server = Server(program, home, environ, *options)
        self._stack.callback(server.close)
        return server

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(holds: Callable[[], Any], timeout_s: float, what: str, pause_s: float = 0.01) -> Any:
    """The first true answer; fails when it takes too long, and says for what."""
    deadline = time.monotonic() + timeout_s
    while not (answer := holds()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:.0f} s for {what}")
        time.sleep(pause_s)
    return answer


def end(pid: int) -> None:
    """End a process that is not a child of this one, and wait until it has gone."""
    os.kill(pid, 15)
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), 30, f"process {pid} to end")


def rss_mb(pid: int) -> float:
    """Resident memory of a process, in MB (10^6 bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ProcessLookupError(pid)


def cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children_of(pid: int) -> Iterator[int]:
    """Living descendants of a process."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield int(child)
            yield from children_of(int(child))
