"""What must be true of this machine before anything is built, each with one line that says what to do when it isn't."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

OLDEST, NEWEST = (3, 11), (3, 13)


class Refusal(Exception):
    """The build can't go on; the text is the one line that the person at the terminal reads."""


def check(version: tuple[int, int] = sys.version_info[:2]) -> None:
    """Refuse an operating system, an interpreter or a missing tool that the build can't do without."""
    if not (sys.platform == "linux" and platform.machine() == "x86_64"):
        raise Refusal(f"Atelier needs Linux on x86-64; this is {sys.platform} on {platform.machine()}.")
    if not OLDEST <= version <= NEWEST:
        raise Refusal(
            f"Atelier needs Python 3.11, 3.12 or 3.13, and {sys.executable} is {version[0]}.{version[1]}: "
            "name another one with `make up PYTHON=/path/to/python3.12`."
        )
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            raise Refusal(
                f"{sys.executable} has no module {module}: install it (on Debian and Ubuntu the package "
                f"python{version[0]}.{version[1]}-venv), or name another interpreter with PYTHON=."
            )
    if shutil.which("git") is None:
        raise Refusal("git is not on PATH: install it (the package git); JupyterLab and run records use it.")


def has_nvidia_driver() -> bool:
    """Whether an NVIDIA driver is loaded or its library can be; WSL has only the library."""
    if Path("/proc/driver/nvidia/version").exists():
        return True
    with contextlib.suppress(OSError):
        ctypes.CDLL("libcuda.so.1")
        return True
    return False


def nearest_existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there already."""
    while not path.exists():
        path = path.parent
    return path


def check_space(needed_bytes: Mapping[Path, int]) -> None:
    """Refuse when a file system has less room than the folders on it will need together.

    Parameters
    ----------
    needed_bytes
        Folder (need not exist yet) to the bytes that will be written below it.
    """
    totals: dict[int, tuple[Path, int]] = {}
    for folder, size_bytes in needed_bytes.items():
        device = os.stat(nearest_existing(folder)).st_dev
        first, so_far = totals.get(device, (folder, 0))
        totals[device] = first, so_far + size_bytes
    for folder, size_bytes in totals.values():
        free_bytes = shutil.disk_usage(nearest_existing(folder)).free
        if free_bytes < size_bytes:
            raise Refusal(
                f"The disk of {folder} has {in_words(free_bytes)} free and {in_words(size_bytes)} are needed: "
                "free some, choose another disk with ATELIER_HOME=, or take one image with IMAGES=pytorch."
            )


def in_words(size_bytes: int) -> str:
    """A size as people read it: ``1.2 GB``, ``34 MB``."""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{max(1, round(size_bytes / 1e6))} MB"


def run(what: str, *argv: object, cwd: Path | None = None, environ: Mapping[str, str] | None = None) -> None:
    """Run a program whose output the person may watch; refuse with what it was for when it fails."""
    command = [os.fspath(part) if isinstance(part, Path) else str(part) for part in argv]
    try:
        status = subprocess.run(command, cwd=cwd, env={**os.environ, **(environ or {})}, check=False).returncode
    except FileNotFoundError as problem:
        raise Refusal(f"Can't {what}: {command[0]} is missing.") from problem
    if status:
        why = f"{Path(command[0]).name} ended with status {status}, its message is above"
        if shutil.disk_usage(nearest_existing(cwd or Path.cwd())).free < 100e6:
            why = "the disk is full"
        raise Refusal(f"Can't {what}: {why}.")


@contextlib.contextmanager
def progress(name: str, folder: Path, expected_bytes: int) -> Iterator[None]:
    """Say while the block works how much more lies on a folder's disk: a moving line on a terminal, else each 15 s."""
    before_bytes = shutil.disk_usage(nearest_existing(folder)).free
    done = threading.Event()
    of = f" of about {in_words(expected_bytes)}" if expected_bytes else ""

    def report() -> None:
        moving = sys.stdout.isatty()
        while not done.wait(1 if moving else 15):
            written_bytes = max(0, before_bytes - shutil.disk_usage(folder).free)
            print(f"{name}: {in_words(written_bytes)}{of} written", end="    \r" if moving else "\n", flush=True)

    reporter = threading.Thread(target=report)
    reporter.start()
    try:
        yield
    finally:
        done.set()
        reporter.join()


@contextlib.contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """Wait until no other build works on the same folder, and hold it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Another build works in {lock.parent}: waiting for it.", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
