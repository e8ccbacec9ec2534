"""Drives the command line as a user does: real processes over a home of their own, stopped at the end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ATELIER = [sys.executable, "-m", "atelier"]
UNFINISHED = ("created", "queued", "starting", "running")


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Terminal:
    """A place to type commands: a home, a folder to stand in, and this Python as the image."""

    home: Path
    cwd: Path
    more: Mapping[str, str] = field(default_factory=dict)

    @property
    def environ(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in {"ATELIER_URL", "ATELIER_TOKEN_FILE"}}
        own = {"ATELIER_HOME": str(self.home), "ATELIER_IMAGE": "current", "PYTHONPATH": os.pathsep.join(sys.path)}
        return {**kept, **own, **self.more}

    def type(self, *words: str, timeout_s: float = 90) -> Done:
        """Run ``atelier`` with these words to its end."""
        done = subprocess.run(
            [*ATELIER, *words],
            cwd=self.cwd,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Start ``atelier`` with these words, in a process group of its own."""
        return subprocess.Popen(
            [*ATELIER, *words],
            cwd=self.cwd,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def json(self, *words: str, timeout_s: float = 90) -> Any:
        """The document of a command that must succeed."""
        done = self.type(*words, "--json", timeout_s=timeout_s)
        assert done.code == 0, done
        return done.document

    def write(self, name: str, text: str) -> Path:
        """A file where the user stands."""
        path = self.cwd / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


@contextmanager
def terminal() -> Iterator[Terminal]:
    """A terminal with an empty home; at the end its runs are cancelled and its service is stopped."""
    home, cwd = Path(tempfile.mkdtemp(prefix="atl-")), Path(tempfile.mkdtemp(prefix="work-"))
    place = Terminal(home, cwd)
    try:
        yield place
    finally:
        _end_runs(place)
        stop_service(home)
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(cwd, ignore_errors=True)


def _end_runs(place: Terminal) -> None:
    if not (place.home / "db").exists():
        return
    for record in place.json("runs", "--limit", "200")["items"]:
        if record["state"] in UNFINISHED:
            place.type("cancel", record["id"], "--now")
            place.type("logs", "-f", record["id"])


def service_pid(home: Path) -> int | None:
    """The process of the service that is noted in a home."""
    try:
        return int(json.loads((home / "run" / "service.json").read_text())["pid"])
    except (OSError, ValueError, KeyError):
        return None


def stop_service(home: Path, number: signal.Signals = signal.SIGTERM) -> None:
    """Send a signal to the service of a home, if there is one, and wait for its end."""
    pid = service_pid(home)
    if pid is None:
        return
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    wait_for(lambda: not _lives(pid), f"the end of service {pid}", timeout_s=15)


def _lives(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def wait_for(condition: Callable[[], Any], what: str, *, timeout_s: float = 30) -> Any:
    """What the condition gives once that is true."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.05)
    return found


def notebook(*cells: str, parameters: str | None = None) -> str:
    """The text of a notebook of code cells; the first one is the parameters cell when given."""
    sources = [(source, []) for source in cells]
    if parameters is not None:
        sources.insert(0, (parameters, ["parameters"]))
    content = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        "cells": [
            {
                "id": f"cell{number}",
                "cell_type": "code",
                "source": source,
                "metadata": {"tags": tags},
                "outputs": [],
                "execution_count": None,
            }
            for number, (source, tags) in enumerate(sources)
        ],
    }
    return json.dumps(content)
