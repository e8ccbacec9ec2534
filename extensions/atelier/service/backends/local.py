"""Attempts as processes of this computer, each under an agent that outlives the service.

A folder per attempt (``<home>/run/attempts/<run>/<n>/``) holds the agent's orders, its token and its lock. The lock is
the sign of life: the kernel releases it when the agent dies, so neither process ids nor heartbeats can mislead.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from atelier.crash_points import crash_point
from atelier.local.attempts import marks_of, processes_of
from atelier.local.catalog import NVIDIA_GPU
from atelier.local.cgroups import NOTE, ControlGroup, group_name, noted_group, sweep
from atelier.local.computer import this_computer
from atelier.local.durable import put_in_place
from atelier.local.homes import home_of
from atelier.local.inheritance import inherited
from atelier.local.plain import read_small
from atelier.local.processes import end
from atelier.service.backends.base import Backend, Key, Launch, Sign
from atelier.service.backends.orphans import orphans
from atelier.service.callers import hub_name
from atelier.service.store import Capacity

START_GRACE_S = 10.0
KILL_PATIENCE_S = 0.0
MOST_RESULT_BYTES = 8 << 20


class LocalBackend(Backend):
    """A `Backend` of local processes.

    Parameters
    ----------
    home : Path
        The folder of all state.
    service : mapping
        How an agent reaches the service: ``{"socket": path}``.
    """

    name = "local"

    def __init__(self, home: Path, service: Mapping[str, str]) -> None:
        self._home = home
        self._root = home / "run" / "attempts"
        self._service = dict(service)
        self._children: dict[Key, list[subprocess.Popen[bytes]]] = {}
        self._starting = threading.Lock()

    def capacity(self) -> Capacity:
        computer = this_computer()
        gpus = [gpu.uuid for gpu in computer.gpus]
        return Capacity(computer.cpu_count, computer.memory_bytes, {NVIDIA_GPU: gpus})

    async def start(self, launch: Launch) -> None:
        await asyncio.to_thread(self._start, launch)

    def _start(self, launch: Launch) -> None:
        folder = self.folder(launch.key)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        orders = {
            "run": launch.key.run_id,
            "attempt": launch.key.n,
            "devices": {k: list(v) for k, v in launch.devices.items()},
        }
        _write_private(folder / "token", launch.token)
        crash_point("service.launch.token")
        _write_private(folder / "orders.json", json.dumps(orders | {"service": self._service}))
        crash_point("service.launch.orders")
        self._spawn(launch.key, [], whose(launch.owner, self._home))

    def _spawn(self, key: Key, options: Sequence[str], user: Mapping[str, str] | None = None) -> None:
        folder = self.folder(key)
        argv = [sys.executable, "-m", "atelier.agent", str(folder), *options]
        environ = agent_environment(os.environ, key, folder) | dict(user or {})
        with _open_log(folder / "agent.log") as log, self._starting:
            child = launch_as(None, argv, environ, log=log.fileno(), folder=folder)
            self._children.setdefault(key, []).append(child)

    async def observe(self, keys: Collection[Key]) -> dict[Key, Sign]:
        return await asyncio.to_thread(lambda: {key: self._sign(key) for key in keys})

    def _sign(self, key: Key) -> Sign:
        children = self._children.get(key, [])
        running = [child for child in children if child.poll() is None]
        self._children[key] = running
        folder = self.folder(key)
        if not (folder / "orders.json").exists():
            return Sign.ABSENT
        if running or is_locked(folder / "lock"):
            return Sign.ALIVE
        if (folder / "lock").exists() or (folder / "run").exists():
            return Sign.GONE
        return Sign.ALIVE if not children and self._is_about_to_begin(key) else Sign.ABSENT

    def _is_about_to_begin(self, key: Key) -> bool:
        """Whether a service that has ended may have started an agent that has not taken its lock yet."""
        age_s = time.time() - os.lstat(self.folder(key) / "orders.json").st_mtime
        return 0 <= age_s < START_GRACE_S or bool(_family(key, self.folder(key)))

    async def recover(self, key: Key) -> None:
        await asyncio.to_thread(self._spawn, key, ["--deliver"])

    async def kill(self, key: Key) -> None:
        await asyncio.to_thread(end, lambda: self._left_of(key), patience_s=KILL_PATIENCE_S)

    def _left_of(self, key: Key) -> list[int]:
        """Ids of what an attempt has left here, by its mark, by its control group, and as orphans."""
        group = self._group(key)
        return [*_family(key, self.folder(key)), *self._orphans(), *(group.members() if group is not None else ())]

    def _group(self, key: Key) -> ControlGroup | None:
        return noted_group(self.folder(key) / NOTE, group_name(self.folder(key)))

    def _orphans(self) -> list[int]:
        """What the work of any dead agent has left here; that of a living one belongs to its agent."""
        with self._starting:
            return orphans({child.pid for children in self._children.values() for child in children})

    async def clean(self, key: Key) -> None:
        self._children.pop(key, None)
        await asyncio.to_thread(self._remove, key)

    def _remove(self, key: Key) -> None:
        folder = self.folder(key)
        self._remove_group(key)
        remove_tree(folder, self._root.parent / "trash")
        with contextlib.suppress(OSError):  # another attempt's folder is still there
            folder.parent.rmdir()

    def _remove_group(self, key: Key) -> None:
        """Remove the control group of a dead agent's work; a living one does it itself."""
        if (group := self._group(key)) is not None:
            group.remove()

    async def result(self, key: Key) -> bytes | None:
        return await asyncio.to_thread(self._result, key)

    def _result(self, key: Key) -> bytes | None:
        for folder in (self.folder(key), self._aside(key)):
            with contextlib.suppress(OSError):  # it is not there, or the run has put something else in its place
                return read_small(folder / "result.json", MOST_RESULT_BYTES)
        return None

    async def set_aside(self, key: Key) -> str | None:
        self._children.pop(key, None)
        return await asyncio.to_thread(self._set_aside, key)

    def _set_aside(self, key: Key) -> str | None:
        folder, aside = self.folder(key), self._aside(key)
        self._remove_group(key)
        if folder.exists() and not aside.exists():
            aside.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.utime(folder)
            folder.rename(aside)
        return str(aside) if aside.exists() else None

    async def clear_aside(self, age_s: float, is_known: Callable[[str], bool]) -> None:
        await asyncio.to_thread(self._clear_aside, age_s, is_known)

    def _clear_aside(self, age_s: float, is_known: Callable[[str], bool]) -> None:
        live = {group_name(path) for path in self._root.glob("r-*/*")}
        sweep(self._root, live.__contains__)
        for folder in (self._root.parent / "undelivered").glob("r-*/*"):
            if time.time() - os.lstat(folder).st_mtime > age_s or not is_known(folder.parent.name):
                remove_tree(folder, self._root.parent / "trash")
                with contextlib.suppress(OSError):  # another attempt's is still there
                    folder.parent.rmdir()

    def _aside(self, key: Key) -> Path:
        return self._root.parent / "undelivered" / key.run_id / str(key.n)

    async def leftovers(self) -> list[Key]:
        return [Key(path.parent.name, int(path.name)) for path in self._root.glob("r-*/*") if path.name.isdecimal()]

    def folder(self, key: Key) -> Path:
        """The attempt's private folder."""
        return self._root / key.run_id / str(key.n)


def _family(key: Key, folder: Path) -> list[int]:
    """Ids of all processes with the attempt's marks, and of their descendants, which may have cleared them."""
    found = dict.fromkeys(processes_of(f"{key.run_id}/{key.n}", folder))
    for pid in list(found):
        with contextlib.suppress(psutil.NoSuchProcess):
            found |= dict.fromkeys(child.pid for child in psutil.Process(pid).children(recursive=True))
    return list(found)


def launch_as(
    user: str | None, argv: Sequence[str], environment: Mapping[str, str], *, log: int, folder: Path
) -> subprocess.Popen[bytes]:
    """Start an agent in a session of its own: the one place where processes of users begin.

    ``user`` is the OS account to become; None is this process's own (``accounts: one``).
    """
    return subprocess.Popen(
        argv,
        env=dict(environment),
        user=user,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        close_fds=True,
    )


def agent_environment(environ: Mapping[str, str], key: Key, folder: Path) -> dict[str, str]:
    """What an agent, and so its work, inherits: no token and no secret of the service, and the marks of the attempt."""
    package = str(Path(__file__).resolve().parents[3])
    return inherited(environ) | {
        **marks_of(f"{key.run_id}/{key.n}", folder),
        "PYTHONPATH": package,
        "PYTHONUNBUFFERED": "1",
        "PYTHONNOUSERSITE": "1",
    }


def whose(owner: str, atelier_home: Path) -> dict[str, str]:
    """Who the work is run for: the home and the name that a hub user's notebooks have.

    The login user's runs keep those of the account, with and without a hub.
    """
    name = hub_name(owner)
    if name is None:
        return {}
    home = home_of(name, atelier_home)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return {"HOME": str(home), "USER": name, "LOGNAME": name}


def _open_log(path: Path) -> IO[bytes]:
    """The agent's own log, to be appended to; what else a run may have put in its place is moved aside."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        path.rename(path.with_name(f"{path.name}.replaced"))
    descriptor = os.open(
        path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600
    )
    return os.fdopen(descriptor, "ab")


def remove_tree(folder: Path, trash: Path) -> None:
    """Remove a folder that a run has filled: read-only folders and any depth too; what resists goes to ``trash``."""
    if not folder.exists():
        return
    for argv in (["chmod", "-R", "u+rwX", "--", str(folder)], ["rm", "-rf", "--", str(folder)]):
        subprocess.run(argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    if folder.exists():
        trash.mkdir(mode=0o700, exist_ok=True)
        folder.rename(trash / f"{folder.parent.name}-{folder.name}-{time.time_ns()}")


def is_locked(path: Path) -> bool:
    """Whether another process holds an exclusive ``flock`` on a file; what is no file holds nobody's."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _write_private(path: Path, text: str) -> None:
    """Replace a file in one step, durable when this returns: an attempt begins, and is brought in, by it."""
    descriptor, part = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    put_in_place(Path(part), path)
