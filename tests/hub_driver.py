"""A whole platform in a temporary home: `atelier up` as a process, and people who log in over HTTP as browsers do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from atelier.hub.site import Site, free_port
from atelier.local import processes
from atelier.local.homes import safe_name

START_TIMEOUT_S = 40
PYTORCH = {"image": "pytorch"}
UP = """
import os, sys
from pathlib import Path
from atelier.up.platform import main
sys.exit(main(int(sys.argv[1]), Path(os.environ["ATELIER_HOME"])))
"""
Found = TypeVar("Found")


def wait_for(what: str, find: Callable[[], Found], *, timeout_s: float = 20) -> Found:
    """Ask until the answer is true; fail with what was waited for."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = find()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s} s for {what}; last answer: {answer!r}")
        time.sleep(0.05)


@dataclass
class Platform:
    """One `atelier up`, with the home of a login user called ``ann`` beside it."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None
    clients: list[httpx.Client] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.folder / "atelier-home"

    @property
    def user_home(self) -> Path:
        return self.folder / "ann"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def site(self) -> Site:
        return Site.load(self.home)

    def environ(self) -> dict[str, str]:
        """The environment of `atelier up`: nothing of the real home."""
        for folder in (self.user_home, self.home / "envs"):
            folder.mkdir(parents=True, exist_ok=True)
        here = {"HOME": str(self.user_home), "LOGNAME": "ann", "USER": "ann", "ATELIER_HOME": str(self.home)}
        return {name: value for name, value in os.environ.items() if not name.startswith("ATELIER_")} | here

    def write_image(self, name: str, *, python: str = sys.executable) -> None:
        """Note an image as `make env` does; its interpreter is by default the one of the tests."""
        self.environ()
        note = {
            "name": name,
            "title": name.title(),
            "framework": name,
            "version": "1.2.3",
            "python": python,
            "lock_sha256": "ab" * 32,
        }
        (self.home / "envs" / f"{name}.json").write_text(json.dumps(note))

    def popen(self, *, port: int | None = None, **environ: str) -> subprocess.Popen[str]:
        """An `atelier up` of this home."""
        command = [sys.executable, "-c", UP, str(port or self.port)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=self.environ() | environ, cwd=self.folder, **pipes)  # type: ignore[call-overload,no-any-return]

    def start(self) -> list[str]:
        """Start, and give the three lines that say it is ready."""
        self.process = self.popen()
        lines = [self.process.stdout.readline().strip() for _ in range(3)]  # type: ignore[union-attr]
        assert lines[2], f"atelier up ended: {self.process.communicate(timeout=20)}"
        return lines

    def stop(self, number: signal.Signals = signal.SIGINT) -> tuple[int, str]:
        """Stop as Ctrl-C does; exit code and what it said on stderr."""
        assert self.process
        self.process.send_signal(number)
        _, told = self.process.communicate(timeout=40)
        return self.process.returncode, told

    def processes(self) -> list[int]:
        """What is alive of this home: the three programs, user servers, runs, and all they have started."""
        names = ("ATELIER_HOME", "ATELIER_SERVER", "ATELIER_RUN_DIR")
        marks = tuple(f"{name}={self.home}".encode() for name in names)
        return processes.marked(lambda entry: entry.startswith(marks))

    def pid_of(self, *words: str) -> int | None:
        """The process of this home whose command line has all these words."""
        for pid in self.processes():
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
            except OSError:
                continue
            if all(word in command for word in words):
                return pid
        return None

    def login(self, name: str, *, password: str | None = None) -> Person:
        """Somebody who has logged in at the login page."""
        client = httpx.Client(base_url=self.url, follow_redirects=True, timeout=30)
        self.clients.append(client)
        page = client.get("/hub/login")
        page.raise_for_status()
        form = {
            "username": name,
            "password": password or self.site.secret("password"),
            "_xsrf": client.cookies["_xsrf"],
        }
        answer = client.post("/hub/login", data=form, params={"next": "/hub/home"})
        return Person(self, name, client, answer.status_code, str(answer.url))


@dataclass
class Person:
    """A browser session of one hub user."""

    platform: Platform
    name: str
    client: httpx.Client
    login_status: int
    landed_at: str

    @property
    def is_in(self) -> bool:
        return self.login_status == 200 and urlsplit(self.landed_at).path == "/hub/home"

    def api(self, method: str, path: str, **rest: Any) -> httpx.Response:
        """A call of the hub's API with this session's cookies."""
        headers = {"X-XSRFToken": self._xsrf("/hub/"), "Referer": f"{self.platform.url}/hub/home"}
        return self.client.request(method, f"/hub/api/{path}", headers=headers, **rest)

    def start_server(self, options: object | None = None) -> httpx.Response:
        """Ask for a server; the answer comes at once or after up to ten seconds, as the hub likes."""
        body = {} if options is None else {"json": {"user_options": options}}
        return self.api("POST", f"users/{self.name}/server", **body)

    def begin_server(self, options: object = PYTORCH) -> None:
        """Start a server, and return when it is ready."""
        assert self.start_server(options).status_code in (201, 202)
        self.wait_until_ready()

    def open_lab(self) -> httpx.Response:
        """JupyterLab's page through the proxy, after the round of OAuth that a browser makes."""
        return self.client.get(f"/user/{self.name}/lab")

    def wait_until_ready(self) -> None:
        """Return when the hub says that the server is ready."""
        wait_for(
            "a ready server",
            lambda: self.api("GET", f"users/{self.name}").json().get("server"),
            timeout_s=START_TIMEOUT_S,
        )

    @property
    def server_pid(self) -> int:
        """The process of the running server."""
        mark = f"ATELIER_SERVER={self.platform.home}/run/servers/{safe_name(self.name)}".encode()
        pids = wait_for("the server's process", lambda: processes.marked(mark.__eq__))
        return next(pid for pid in pids if b"singleuser" in Path(f"/proc/{pid}/cmdline").read_bytes())

    def server_environ(self) -> dict[str, str]:
        """The environment of the running server's process."""
        pairs = Path(f"/proc/{self.server_pid}/environ").read_bytes().decode().split("\0")
        return dict(pair.split("=", 1) for pair in pairs if "=" in pair)

    def _xsrf(self, path: str) -> str:
        return next(
            cookie.value or "" for cookie in self.client.cookies.jar if cookie.name == "_xsrf" and cookie.path == path
        )


@contextmanager
def running_platform(folder: Path, *, images: tuple[str, ...] = ("pytorch",)) -> Iterator[Platform]:
    """A platform that is up, and is taken down whole at the end."""
    platform = Platform(folder)
    for image in images:
        platform.write_image(image)
    try:
        platform.start()
        yield platform
    finally:
        for client in platform.clients:
            client.close()
        if platform.process and platform.process.poll() is None:
            platform.stop()
        left = platform.processes()
        processes.end(platform.processes, patience_s=2)
        assert not left, f"left behind: {left}"
