"""Packages that a work asks for in ``requirements.txt``: installed over the image once, then shared by content."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from atelier.agent.outcome import Result
from atelier.overlay import Overlay, make_overlay

FILE = "requirements.txt"


class InstallFailed(Exception):
    """The installer ended with an error; the log has its words."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"pip ended with exit code {exit_code}")
        self.exit_code = exit_code

    def as_result(self) -> Result:
        """The attempt's end that follows."""
        words = "The packages in requirements.txt could not be installed; the log has the installer's words."
        return Result("failed", "requirements", words, self.exit_code)


def install(
    requirements: Path,
    image_python: Path,
    *,
    lock: str,
    layers: Path,
    environment: Mapping[str, str],
    tell: Callable[[bytes], None],
) -> Overlay:
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
    environment : mapping
        The installer's environment.
    tell : callable
        Takes what the installer prints.

    Raises
    ------
    InstallFailed
        The installer refused or could not get a package; nothing half-made is left.
    """
    key = hashlib.sha256(f"{image_python}\n{lock}\n{requirements.read_text(errors='replace')}".encode()).hexdigest()[
        :24
    ]
    layers.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder, ready = layers / key, layers / f"{key}.ready"
    with (layers / f"{key}.lock").open("a") as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)
        if not ready.exists():
            shutil.rmtree(folder, ignore_errors=True)
            overlay = make_overlay(image_python, folder)
            _run_pip(overlay, requirements, environment, tell)
            ready.touch()
        return make_overlay(image_python, folder)


def _run_pip(
    overlay: Overlay, requirements: Path, environment: Mapping[str, str], tell: Callable[[bytes], None]
) -> None:
    argv = [
        str(overlay.python),
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
        "--progress-bar=off",
    ]
    argv += ["--constraint", str(overlay.constraints), "--requirement", requirements.name]
    tell(f"Installing {requirements.name} over the image …\n".encode())
    process = subprocess.Popen(
        argv,
        env=dict(environment),
        cwd=requirements.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    with process.stdout as output:
        while data := os.read(output.fileno(), 1 << 16):
            tell(data)
    if process.wait() != 0:
        shutil.rmtree(overlay.folder, ignore_errors=True)
        raise InstallFailed(process.returncode)
