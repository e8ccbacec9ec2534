"""Packages that a work asks for in ``requirements.txt``: installed over the image once, then shared by content."""

from __future__ import annotations

import hashlib
import os
import re
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from atelier.agent.outcome import Result
from atelier.local.layers import ALONE, SHARED, try_lock
from atelier.local.overlay import Overlay, make_overlay
from atelier.quantities import format_duration

FILE = "requirements.txt"
POLL_S = 0.1
_PIP_OPTIONS = ("--disable-pip-version-check", "--no-input", "--progress-bar=off")
_REFUSED = "The packages in requirements.txt could not be installed; the log has the installer's words."
_URL = re.compile(r"\b(?!file:)[\w+]+://\S+")
_OPTION_WITH_A_FILE = re.compile(r"\s*(?:-[efrc]|--(?:editable|find-links|requirement|constraint)\b|\.)")


class InstallFailed(Exception):
    """The installation ended without its packages; the log has the installer's words."""

    def __init__(self, words: str, exit_code: int | None = None) -> None:
        super().__init__(words)
        self.exit_code = exit_code

    def as_result(self) -> Result:
        """The attempt's end that follows."""
        return Result("failed", "requirements", str(self), self.exit_code)


class Patience:
    """How long an installation may go on.

    Parameters
    ----------
    limit_s : float
        Seconds from now.
    is_stopped : callable
        Whether the attempt was told to stop; asked several times a second.
    end : callable
        Ends the installer's processes.
    """

    def __init__(self, limit_s: float, *, is_stopped: Callable[[], bool], end: Callable[[], None]) -> None:
        self.end = end
        self._limit_s, self._is_stopped = limit_s, is_stopped
        self._until = time.monotonic() + limit_s

    def check(self) -> None:
        """Nothing while there is time.

        Raises
        ------
        InstallFailed
            The attempt was told to stop, or the time is over.
        """
        if self._is_stopped():
            raise InstallFailed("The installation was stopped.")
        if time.monotonic() > self._until:
            raise InstallFailed(
                f"The packages in requirements.txt were not installed within {format_duration(self._limit_s)}. Ask for "
                "fewer, or have them put into the image or limits.install_time raised."
            )


@dataclass(frozen=True)
class Layer:
    """An environment in use; it is not cleared away before ``lock`` is closed, by this process's end at the latest."""

    overlay: Overlay
    lock: IO[str]


def install(
    requirements: Path,
    image_python: Path,
    *,
    lock: str,
    layers: Path,
    bundle: str,
    environment: Mapping[str, str],
    tell: Callable[[bytes], None],
    patience: Patience,
) -> Layer:
    """An environment with the image's packages and a requirements file's; built once for the same file and image.

    Parameters
    ----------
    requirements : Path
        The file.
    image_python : Path
        The image's interpreter.
    lock : str
        The image's packages; another image gets another layer.
    layers : Path
        The folder of all layers.
    bundle : str
        The sha256 of the code; tells layers apart whose requirements are files in it.
    environment : mapping
        The installer's environment.
    tell : callable
        Takes what the installer prints.
    patience : Patience
        How long it may take, waiting for another attempt that installs the same included.

    Raises
    ------
    InstallFailed
        The installer refused or could not get a package, or was ended; nothing half-made is left.
    """
    layers.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = layers / _key(image_python, lock, requirements.read_text(errors="replace"), bundle)
    ready, locked = folder.with_suffix(".ready"), folder.with_suffix(".lock")
    while (held := _take(ready, locked)) is None:
        patience.check()
        maker = try_lock(locked, ALONE)
        if maker is None:
            time.sleep(POLL_S)
            continue
        with maker:
            if not ready.exists():
                shutil.rmtree(folder, ignore_errors=True)
                _run_pip(make_overlay(image_python, folder), requirements, environment, tell=tell, patience=patience)
                ready.touch()
    return Layer(make_overlay(image_python, folder), held)


def _take(ready: Path, locked: Path) -> IO[str] | None:
    """Take a whole layer into use: its lock; None when there is none, or somebody makes or removes it."""
    held = try_lock(locked, SHARED)
    if held is not None and not ready.exists():
        held.close()
        return None
    if held is not None:
        os.utime(ready)
    return held


def _key(image_python: Path, lock: str, text: str, bundle: str) -> str:
    """The layer's name: the same image and requirements, and the same code where they are files in it."""
    neighbours = bundle if any(map(_names_a_file, text.splitlines())) else ""
    return hashlib.sha256(f"{image_python}\n{lock}\n{text}\n{neighbours}".encode()).hexdigest()[:24]


def _names_a_file(line: str) -> bool:
    """Whether a line names something beside it: ``./x.whl``, ``-r more.txt``, ``folder/package``."""
    words = _URL.sub("", line.partition(" #")[0])
    return not words.startswith("#") and ("/" in words or _OPTION_WITH_A_FILE.match(words) is not None)


def _run_pip(
    overlay: Overlay,
    requirements: Path,
    environment: Mapping[str, str],
    *,
    tell: Callable[[bytes], None],
    patience: Patience,
) -> None:
    argv = [str(overlay.python), "-m", "pip", "install", *_PIP_OPTIONS]
    argv += ["--constraint", str(overlay.constraints), "--requirement", requirements.name]
    scratch = overlay.folder / "tmp"
    scratch.mkdir()
    tell(f"Installing {requirements.name} over the image …\n".encode())
    process = subprocess.Popen(
        argv,
        env=dict(environment) | {"TMPDIR": str(scratch)},
        cwd=requirements.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        _pass_output(process, tell, patience)
        if process.wait() != 0:
            raise InstallFailed(_REFUSED, process.returncode)
    except InstallFailed:
        patience.end()
        process.wait()
        shutil.rmtree(overlay.folder, ignore_errors=True)
        raise
    shutil.rmtree(scratch)


def _pass_output(process: subprocess.Popen[bytes], tell: Callable[[bytes], None], patience: Patience) -> None:
    assert process.stdout is not None
    with process.stdout as output:
        while True:
            patience.check()
            if select.select([output], [], [], POLL_S)[0]:
                data = os.read(output.fileno(), 1 << 16)
                if not data:
                    return
                tell(data)
