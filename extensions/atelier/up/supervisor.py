"""Keeps a few programs alive: starts them, restarts one that ends, stops them in order.

A program gets SIGTERM when the supervisor itself dies (``PR_SET_PDEATHSIG``): a killed supervisor leaves nothing that
holds a port.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from atelier.local.logs import log_tail

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 15.0
STEADY_AFTER_S = 30.0
LOG_LIMIT_BYTES = 10 * 2**20
CANNOT_START = 127
_PR_SET_PDEATHSIG = 1

Say = Callable[[str], None]


@dataclass(frozen=True)
class Program:
    """What to run. ``after_restart`` is awaited once a program that had ended runs again."""

    name: str
    argv: tuple[str, ...]
    log: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    patience_s: float = 10.0
    after_restart: Callable[[], Awaitable[None]] | None = None


class Keeper:
    """Keeps one program alive until `stop`; the pause between two starts doubles up to 15 s while it keeps failing."""

    def __init__(self, program: Program, say: Say) -> None:
        self.program = program
        self.failures = 0
        self._say = say
        self._process: Process | None = None
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Id of the process that runs now."""
        return self._process.pid if self._process and self._process.returncode is None else None

    def begin(self) -> None:
        """Start the program and watch it in the background."""
        self._task = asyncio.create_task(self._keep(), name=f"keep {self.program.name}")

    async def stop(self) -> None:
        """End the program: SIGTERM, and SIGKILL when its patience is over; calling it twice is harmless."""
        self._stopping.set()
        if self._task is None:
            return
        self.signal(signal.SIGTERM)
        done, _ = await asyncio.wait([self._task], timeout=self.program.patience_s)
        if not done:
            self.signal(signal.SIGKILL)
            await self._task

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if there is one."""
        if self._process and self._process.returncode is None:
            self._process.send_signal(number)

    async def _keep(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            status = await self._run_once()
            if self._stopping.is_set():
                return
            steady = time.monotonic() - began > STEADY_AFTER_S
            self.failures = 1 if steady else self.failures + 1
            pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (self.failures - 1))
            if pause_s < LONGEST_PAUSE_S or self.failures % 20 == 0:
                self._say(_obituary(self.program, status))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)

    async def _run_once(self) -> int:
        try:
            process = self._process = await _start(self.program)
        except OSError as problem:
            self._say(f"The {self.program.name} can't be started: {problem}")
            return CANNOT_START
        if self._stopping.is_set():
            process.terminate()
        elif self.failures and self.program.after_restart:
            await self.program.after_restart()
        return await process.wait()


async def _start(program: Program) -> Process:
    with _open_log(program.log) as log:
        return await asyncio.create_subprocess_exec(
            *program.argv,
            stdin=DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **program.environ},
            cwd=program.log.parent,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextlib.contextmanager
def _open_log(path: Path) -> Iterator[int]:
    if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _obituary(program: Program, status: int) -> str:
    """One line: how it ended, its own last words where it ended by itself, and where the rest of them is."""
    if status < 0:
        how = f"was killed by {signal.Signals(-status).name}"
    else:
        words = _last_words(program.log)
        how = f"ended with code {status}" + (f" ({words[:200]})" if words else "")
    return f"The {program.name} {how}; starting it again. Its log: {program.log}"


def _last_words(log: Path) -> str:
    """The error that a program's log ends with, without the hint behind it; else its last line."""
    lines = log_tail(log, lines=2).strip().splitlines()
    return next((line for line in reversed(lines) if line.startswith("error[")), lines[-1] if lines else "")
