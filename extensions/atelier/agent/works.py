"""The contract of a work in progress, and the one that is a plain process: a script, a module, a function."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from atelier.agent.launching import Launcher
from atelier.agent.logfile import LogFile
from atelier.agent.outcome import Result, UserError, error_in_log, failed
from atelier.agent.uncaught import noted, noting
from atelier.crash_points import crash_point
from atelier.local.cgroups import oom_kills

READ_BYTES = 1 << 16
TAIL_BYTES = 1 << 16
UNCAUGHT_EXIT_CODE = 1
"""Python's own, after an error that nothing has caught."""


class Work(Protocol):
    """A work in progress. `run` blocks in the main thread; `interrupt` and `kill` come from another one."""

    def run(self) -> Result:
        """Do the work, and say how it ended; an order to stop is not this one's matter."""
        ...

    @property
    def where(self) -> str:
        """Where it is, in a sentence; empty where nothing is known of it."""
        ...

    def interrupt(self) -> None:
        """Ask the code to stop as a user at a keyboard or a scheduler would; nothing when it has ended."""
        ...

    def kill(self) -> None:
        """End it at once; nothing when it has ended."""
        ...


class ProcessWork:
    """A `Work` that is one process; what it prints goes to the log as it comes, both streams in their order.

    Parameters
    ----------
    argv, environment, folder
        The command, its whole environment, its working directory.
    log : LogFile
        Where its output goes.
    root : Path
        The unpacked bundle; tracebacks show paths relative to it.
    launcher : Launcher
        Begins the process.
    on_end : callable
        Called when the process has ended and before its output is read to the end: ends its descendants, which may hold
        the pipe open.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        log: LogFile,
        root: Path,
        launcher: Launcher,
        on_end: Callable[[], None],
    ) -> None:
        self._argv, self._launcher = list(argv), launcher
        self._environment = dict(environment)
        self._folder, self._log, self._root, self._on_end = folder, log, root, on_end
        self._note = launcher.note.with_name("uncaught")
        self._process: subprocess.Popen[bytes] | None = None
        self._tail = b""

    def run(self) -> Result:
        kills = oom_kills()
        try:
            self._process = subprocess.Popen(
                self._launcher.argv(self._argv),
                env=noting(self._environment, self._note),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as problem:
            return Result("failed", "start_failed", f"{self._argv[0]} can't be used: {problem.strerror}.")
        crash_point("agent.work.begun")
        pump = threading.Thread(target=self._pump, name="output")
        pump.start()
        code = self._process.wait()
        self._on_end()
        pump.join()
        if (words := self._launcher.problem()) is not None:
            return Result("failed", "start_failed", words)
        if code == 0:
            return Result("succeeded", exit_code=0)
        error = self._uncaught() if code == UNCAUGHT_EXIT_CODE else None
        return failed(error, code, oom_killed=code == -signal.SIGKILL and oom_kills() > kills)

    def _uncaught(self) -> UserError | None:
        """The error that nothing caught: as the interpreter has noted it, else by the end of the log."""
        told = noted(self._note)
        return error_in_log(self._tail.decode(errors="replace") if told is None else told, str(self._root))

    def _pump(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while data := os.read(descriptor, READ_BYTES):
            self._log.write(data)
            self._tail = (self._tail + data)[-TAIL_BYTES:]
        self._process.stdout.close()

    @property
    def where(self) -> str:
        return ""

    def interrupt(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
