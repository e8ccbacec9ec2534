"""Starts the run service of this OS user's home when none is alive, and waits until it answers.

Two clients that start one at once meet at ``run/start.lock``: the second takes what the first has started.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from atelier.client.address import Address, live_address
from atelier.errors import Unreachable
from atelier.local.logs import log_tail

START_TIMEOUT_S = 30.0
"""A first start on a busy disk was seen to take 5 s; what ends at once is told at once."""

LOG_LIMIT_BYTES = 5 * 2**20
_OF_A_RUN = (
    *("ATELIER_RUN_DIR", "ATELIER_RUN_ID", "ATELIER_ATTEMPT", "ATELIER_RESUME_FROM", "ATELIER_PARAMS"),
    *("ATELIER_ATTEMPT_KEY", "ATELIER_ATTEMPT_PLACE"),  # what bears them ends with the run
)


def find_or_start(home: Path) -> Address:
    """The live service of this home; starts one where there is none.

    Raises
    ------
    Unreachable
        ``no_platform``: no interpreter that can run the service; ``start_failed``: it ended at once, or did
        not answer in 30 s; the message has the end of its log.
    """
    return live_address(home) or _start(home)


def platform_python(home: Path) -> str:
    """The interpreter that has the service's libraries: this one, else the one of the platform environment."""
    if importlib.util.find_spec("fastapi") and importlib.util.find_spec("uvicorn"):
        return sys.executable
    try:
        noted = json.loads((home / "envs" / "platform.json").read_text(encoding="utf-8"))["python"]
    except (OSError, ValueError, KeyError, TypeError):
        noted = None
    if isinstance(noted, str) and os.access(noted, os.X_OK):
        return noted
    raise Unreachable(
        "no_platform",
        f"No run service is alive for {home}, and this Python ({sys.executable}) lacks what starting one needs.",
        hint="Start the platform ('make up'), or install 'jupyterhub-atelier[platform]' into this environment.",
    )


def _start(home: Path) -> Address:
    python = platform_python(home)
    run_folder = _run_folder(home)
    deadline = time.monotonic() + START_TIMEOUT_S
    with _start_lock(run_folder / "start.lock", deadline):
        alive = live_address(home)
        if alive:
            return alive
        return _wait_until_live(home, lambda: _spawn(python, home, run_folder / "service.log"), deadline)


def _run_folder(home: Path) -> Path:
    folder = home / "run"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as problem:
        raise Unreachable(
            "bad_home",
            f"The folder {folder} can't be made: {problem.strerror}.",
            hint="Set ATELIER_HOME to a folder of yours on a local disk.",
        ) from problem
    return folder


@contextmanager
def _start_lock(path: Path, deadline: float) -> Iterator[None]:
    """Only one client at a time starts a service; the kernel drops the lock when its holder dies."""
    with path.open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Unreachable(
                        "start_failed",
                        f"Another process has been starting the run service for {START_TIMEOUT_S:.0f} s.",
                        hint=f"Look at {path.with_name('service.log')}, then try again.",
                    ) from None
                time.sleep(0.02)
        yield


def _spawn(python: str, home: Path, log_path: Path) -> subprocess.Popen[bytes]:
    """A service in a session of its own, so that it outlives this process and its terminal."""
    fresh = log_path.exists() and log_path.stat().st_size > LOG_LIMIT_BYTES
    with log_path.open("wb" if fresh else "ab") as log:
        process = subprocess.Popen(
            [python, "-m", "atelier.service", "--home", str(home), "--embedded"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=home,
            env=_service_environ(os.environ, same_python=python == sys.executable),
            start_new_session=True,
        )
    threading.Thread(target=process.wait, name="atelier-service-reaper", daemon=True).start()
    return process


def _service_environ(environ: Mapping[str, str], *, same_python: bool) -> dict[str, str]:
    """What the service inherits: all but the marks of a run that this process may be part of.

    Another interpreter must not get this one's module path.
    """
    kept = {name: value for name, value in environ.items() if name not in _OF_A_RUN}
    if not same_python:
        return {name: value for name, value in kept.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    if "PYTHONPATH" in kept:
        folders = kept["PYTHONPATH"].split(os.pathsep)
        kept["PYTHONPATH"] = os.pathsep.join(str(Path(folder).absolute()) for folder in folders if folder)
    return kept


def _wait_until_live(home: Path, spawn: Callable[[], subprocess.Popen[bytes]], deadline: float) -> Address:
    """The service's address once it answers; spawns one as soon as nobody (just starting, or ending) holds the home."""
    process = None
    while time.monotonic() < deadline:
        address = live_address(home)
        if address:
            return address
        is_held = lock_holder(home / "run" / "service.lock") is not None
        if process is None and not is_held:
            process = spawn()
        elif process is not None and process.poll() is not None and not is_held:
            raise _start_failed(home, f"ended with exit code {process.returncode} before it answered")
        time.sleep(0.02)
    raise _start_failed(home, f"did not answer within {START_TIMEOUT_S:.0f} s")


def lock_holder(path: Path) -> int | None:
    """The process that holds a `flock` on a file; None for none. Looked up, not tried: trying could disturb a start.

    The kernel names the file by device and inode; on btrfs and overlayfs the device is another one than `stat` says,
    so there the process must have the file open.
    """
    try:
        status = path.stat()
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    for line in lines:
        fields = line.split()
        if len(fields) >= 6 and fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(status.st_ino):
            holder = int(fields[4])
            if fields[5].rpartition(":")[0] == device or _has_open(holder, path):
                return holder
    return None


def _has_open(pid: int, path: Path) -> bool:
    try:
        return any(link.readlink() == path.resolve() for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def _start_failed(home: Path, what: str) -> Unreachable:
    log_path = home / "run" / "service.log"
    tail = log_tail(log_path, lines=15)
    return Unreachable(
        "start_failed",
        f"The run service of {home} {what}." + (f" The end of its log:\n{tail}" if tail else " Its log is empty."),
        hint=f"Run 'atelier doctor'; the whole log is {log_path}.",
        detail={"log": tail},
    )
