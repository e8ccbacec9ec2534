"""Packages that a work asks for in ``requirements.txt``: installed over the image once, then shared by content."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from atelier.agent.outcome import Result
from atelier.local.overlay import Overlay, make_overlay

FILE = "requirements.txt"
_URL = re.compile(r"\b(?!file:)[\w+]+://\S+")
_OPTION_WITH_A_FILE = re.compile(r"\s*(?:-[efrc]|--(?:editable|find-links|requirement|constraint)\b|\.)")


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
    bundle: str,
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
    bundle : str
        The sha256 of the code; tells layers apart whose requirements are files in it.
    environment : mapping
        The installer's environment.
    tell : callable
        Takes what the installer prints.

    Raises
    ------
    InstallFailed
        The installer refused or could not get a package; nothing half-made is left.
    """
    key = _key(image_python, lock, requirements.read_text(errors="replace"), bundle)
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


def _key(image_python: Path, lock: str, text: str, bundle: str) -> str:
    """The layer's name: the same image and requirements, and the same code where they are files in it."""
    neighbours = bundle if any(map(_names_a_file, text.splitlines())) else ""
    return hashlib.sha256(f"{image_python}\n{lock}\n{text}\n{neighbours}".encode()).hexdigest()[:24]


def _names_a_file(line: str) -> bool:
    """Whether a line names something beside it: ``./x.whl``, ``-r more.txt``, ``folder/package``."""
    words = _URL.sub("", line.partition(" #")[0])
    return not words.startswith("#") and ("/" in words or _OPTION_WITH_A_FILE.match(words) is not None)


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
    assert process.stdout is not None
    with process.stdout as output:
        while data := os.read(output.fileno(), 1 << 16):
            tell(data)
    if process.wait() != 0:
        shutil.rmtree(overlay.folder, ignore_errors=True)
        raise InstallFailed(process.returncode)
    shutil.rmtree(scratch)
