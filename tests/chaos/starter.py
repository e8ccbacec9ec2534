"""Starts run services without the second that a new Python needs: it has imported all of one, and forks.

A forked service runs ``main`` as ``python -m atelier.service`` does, in a session, a folder and an environment of its
own. It is one process, which holds the home's locks and can be killed as any other. It is asked for by lines of JSON.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atelier.service.__main__ import main as serve


@dataclass
class Forked:
    """A service that `Starter` has forked, in the words of `subprocess.Popen`."""

    starter: Starter
    pid: int
    returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it lives."""
        if self.returncode is None:
            self.returncode = self.starter.ask(wait=self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once there is one."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"service {self.pid}", timeout or 0.0)
            time.sleep(0.005)
        return code

    def send_signal(self, number: int) -> None:
        """Signal it; nothing when it has ended. Its id is nobody else's until `poll` has seen its end."""
        if self.returncode is None:
            os.kill(self.pid, number)


class Starter:
    """The process that forks services for this one."""

    def __init__(self) -> None:
        argv = [sys.executable, "-m", __name__]
        environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, env=environ, start_new_session=True)

    def start(self, argv: Sequence[str], environ: Mapping[str, str], log: Path, folder: Path) -> Forked:
        """A service with these arguments; what it says is added to a file."""
        pid = self.ask(argv=list(argv), environ=dict(environ), log=str(log), folder=str(folder))
        assert pid is not None
        return Forked(self, pid)

    def ask(self, **what: Any) -> int | None:
        """One line there, one line back."""
        asking, answering = self._process.stdin, self._process.stdout
        assert asking is not None
        assert answering is not None
        asking.write(json.dumps(what).encode() + b"\n")
        asking.flush()
        answer: int | None = json.loads(answering.readline())
        return answer

    def close(self) -> None:
        """End it; what it has forked is left to whoever asked for it."""
        self._process.communicate(timeout=10)


@functools.cache
def the_starter() -> Starter:
    """The one of this process of tests; the fixture that looks for what is left ends it."""
    return Starter()


def answer_all() -> int:
    """Do what each line asks for until there are no more; in a forked service: serve, and how that ended."""
    gc.freeze()  # what is shared stays shared
    while line := sys.stdin.buffer.readline():
        asked = json.loads(line)
        pid = asked.get("wait")
        if pid is None:
            pid = os.fork()
            if pid == 0:
                become(asked)
                return serve(asked["argv"])
            answer: int | None = pid
        else:
            ended, status = os.waitpid(pid, os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if ended else None
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()
    return 0


def become(asked: Mapping[str, Any]) -> None:
    """Take over what a process is given by whoever starts it."""
    os.setsid()
    os.chdir(asked["folder"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(asked["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
        os.set_inheritable(target, True)
    os.close(nothing)
    os.close(log)
    os.environ.clear()
    os.environ.update(asked["environ"])


if __name__ == "__main__":
    sys.exit(answer_all())
