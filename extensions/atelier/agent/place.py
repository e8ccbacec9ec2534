"""The attempt's folder on this machine: orders, token, lock, code, spool, result; and files moved in and out by URL."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import http.client
import io
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from atelier.errors import Unreachable
from atelier.local import below
from atelier.local.cgroups import NOTE, group_name
from atelier.local.plain import open_regular, read_small

LOCK_WAIT_S = 2.0
FETCH_TIMEOUT_S = 60.0
MOST_ORDERS_BYTES = 1 << 20

_FOR_GOOD = frozenset({errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EFBIG, errno.EINVAL})
"""What a disk says of a name or a file that it will never take; all else may pass."""


@dataclass(frozen=True)
class Place:
    """Knows where everything of one attempt lies below ``folder``."""

    folder: Path

    @cached_property
    def orders(self) -> dict[str, Any]:
        """What the backend has written: run, attempt, devices, how to reach the service."""
        orders: dict[str, Any] = json.loads(read_small(self.folder / "orders.json", MOST_ORDERS_BYTES))
        return orders

    @property
    def token(self) -> str:
        return read_small(self.folder / "token", MOST_ORDERS_BYTES).decode().strip()

    @property
    def work(self) -> Path:
        """The unpacked bundle."""
        return self.folder / "work"

    @property
    def run(self) -> Path:
        """``$ATELIER_RUN_DIR``."""
        return self.folder / "run"

    @property
    def spool(self) -> Path:
        """What the recorder and the agent append."""
        return self.run / "spool"

    @property
    def log(self) -> Path:
        return self.spool / "log"

    @property
    def log_tail(self) -> Path:
        """What is appended to the log at its end."""
        return self.folder / "log-tail"

    @property
    def control(self) -> Path:
        return self.spool / "control.json"

    @property
    def notebook(self) -> Path:
        """The executed notebook as it is now."""
        return self.folder / "notebook.ipynb"

    @property
    def before(self) -> Path:
        """What the working directory held before the work began: path → [size, mtime_ns]."""
        return self.folder / "before.json"

    @property
    def result(self) -> Path:
        """The attempt's end, written before the service is told."""
        return self.folder / "result.json"

    @property
    def work_time(self) -> Path:
        """Where it is noted how long the work has run."""
        return self.folder / "work-time"

    @property
    def group(self) -> Path:
        """Where the work's control group is noted."""
        return self.folder / NOTE

    @property
    def group_name(self) -> str:
        """What that is called."""
        return group_name(self.folder)

    def make(self) -> None:
        """Make the folders that the work needs."""
        for folder in (self.spool, self.spool / "artifacts", self.work):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.log.touch()

    def take_lock(self) -> IO[str] | None:
        """Hold the attempt's lock until this process ends; None when another agent holds it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        stream = os.fdopen(os.open(self.folder / "lock", flags, 0o600), "r+")
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return stream
            except BlockingIOError:
                if time.monotonic() > deadline:
                    stream.close()
                    return None
                time.sleep(0.01)


def fetch(url: str, target: Path) -> None:
    """Bring the bytes of a ``file://`` or ``https://`` URL to a local file.

    Raises
    ------
    OSError
        It could not be read whole, or written; `FileNotFoundError`, `NotADirectoryError`, or an ``HTTPError`` with
        its status as ``code`` where it is not there.
    """
    if url.startswith("file://"):
        root, *folders, name = Path(_local(url)).parts
        with (
            below.held_folder(Path(root), folders) as folder,
            below.open_file(folder, name) as local,
            target.open("wb") as stream,
        ):
            shutil.copyfileobj(local, stream, 1 << 20)
        return
    try:
        with urllib.request.urlopen(url, timeout=FETCH_TIMEOUT_S) as source, target.open("wb") as stream:
            shutil.copyfileobj(source, stream, 1 << 20)
            if source.length:  # a read with a size ends early without a word when the connection does
                raise ConnectionError(errno.ECONNRESET, f"the connection ended {source.length} bytes too early", url)
    except urllib.error.HTTPError as problem:
        problem.close()
        raise
    except http.client.HTTPException as problem:
        raise ConnectionError(errno.ECONNRESET, f"the connection ended too early: {problem!r}", url) from problem


def store(source: Path, url: str) -> None:
    """Bring a local file to a ``file://`` URL, whole or not at all, or by PUT to a presigned one.

    Raises
    ------
    OSError
        The source can't be read, or the target can never be written.
    Unreachable
        The target can't be written now.
    """
    if url.startswith("file://"):
        with open_regular(source) as reader, _told_apart():
            _store_below(reader, *Path(_local(url)).parts)
        return
    with open_regular(source) as reader, _told_apart():
        headers = {"Content-Length": str(source.stat().st_size)}
        urllib.request.urlopen(
            urllib.request.Request(url, data=reader, method="PUT", headers=headers), timeout=600
        ).close()


def _store_below(reader: io.BufferedReader, root: str, *names: str) -> None:
    """Store at a path in which nothing may be a link: the service gives one that has none."""
    *folders, name = names
    with below.held_folder(Path(root), folders) as folder, below.replacement(folder, name) as stream:
        shutil.copyfileobj(reader, stream, 1 << 20)


@contextlib.contextmanager
def _told_apart() -> Iterator[None]:
    """Tell a storage that fails for now, as a full disk does, from what it will never take."""
    try:
        yield
    except OSError as problem:
        status = getattr(problem, "code", None)  # of an HTTPError
        if problem.errno in _FOR_GOOD or (isinstance(status, int) and status < 500):
            raise
        raise Unreachable(
            "storage_failing", f"The storage can't take it now: {problem.strerror or problem}."
        ) from problem


def _local(url: str) -> str:
    return unquote(urlsplit(url).path)


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes."""
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
