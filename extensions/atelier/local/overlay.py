"""Packages over a shared image: a virtual environment that sees the image's packages and adds its own.

``pip install`` writes into it, ``pip uninstall`` takes out of it, and the image stays as it is, for root too. The pins
of what the image has are a constraints file, so that a package that would break the framework is refused with pip's
reason.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from atelier.errors import Unavailable

PROBE_TIMEOUT_S = 30.0
_PROBE = """
import json, sys, sysconfig
print(json.dumps({
    "base": sys._base_executable,
    "version": "%d.%d" % sys.version_info[:2],
    "packages": sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}),
}))
"""


@dataclass(frozen=True)
class Overlay:
    """An overlay of one image. ``bins`` is what PATH begins with; ``constraints`` goes into ``PIP_CONSTRAINT``."""

    folder: Path
    python: Path
    constraints: Path
    bins: tuple[Path, ...]


def make_overlay(image_python: Path, folder: Path) -> Overlay:
    """Make the overlay of an image in a folder, or find the one that was made there before.

    Raises
    ------
    Unavailable
        ``broken_image``: the image's interpreter does not answer.
    """
    about = _about(image_python)
    packages = folder / "lib" / f"python{about['version']}" / "site-packages"
    packages.mkdir(parents=True, exist_ok=True)
    (folder / "bin").mkdir(exist_ok=True)
    _write(folder / "pyvenv.cfg", _pyvenv(about))
    _write(packages / "_image.pth", "".join(f"import site; site.addsitedir({each!r})\n" for each in about["packages"]))
    _write(folder / "constraints.txt", _pins(about["packages"]))
    python = folder / "bin" / "python"
    for link in (python, python.with_name("python3"), python.with_name(f"python{about['version']}")):
        _link(link, about["base"])
    for script in ("pip", "pip3"):
        _write_script(folder / "bin" / script, f'#!/bin/sh\nexec "{python}" -m pip "$@"\n')
    return Overlay(folder, python, folder / "constraints.txt", (folder / "bin", image_python.parent))


def _about(image_python: Path) -> dict[str, Any]:
    """Base interpreter, version and package folders of an environment."""
    try:
        told = subprocess.run(
            [str(image_python), "-I", "-c", _PROBE], capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=True
        ).stdout
        about: dict[str, Any] = json.loads(told)
    except (OSError, subprocess.SubprocessError, ValueError) as problem:
        raise Unavailable(
            "broken_image",
            f"The image's interpreter {image_python} does not answer.",
            hint="'make env' builds it anew.",
        ) from problem
    return about


def _pyvenv(about: dict[str, Any]) -> str:
    home = Path(about["base"]).parent
    return f"home = {home}\ninclude-system-site-packages = false\nversion = {about['version']}\nprompt = atelier\n"


def _pins(package_folders: list[str]) -> str:
    """``name==version`` of every distribution in the image, from the names of its ``.dist-info`` folders."""
    pins = set()
    for folder in package_folders:
        for entry in os.scandir(folder):
            match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._]*)-([^-]+)\.dist-info", entry.name)
            if match and match[1].lower() not in {"pip", "setuptools", "wheel"}:
                pins.add(f"{match[1]}=={match[2]}\n")
    return "".join(sorted(pins))


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _write_script(path: Path, text: str) -> None:
    _write(path, text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def _link(path: Path, target: str) -> None:
    if path.is_symlink() and os.readlink(path) == target:
        return
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def only_in_overlay(folder: Path, modules: Collection[str]) -> dict[str, str]:
    """Of some top-level modules, those that a user's overlay has: name → ``distribution==version``.

    What the overlay has, the image had not: its constraints keep the image's own packages where they are.
    """
    found: dict[str, str] = {}
    for packages in folder.glob("lib/python3*/site-packages"):
        for distribution in metadata.distributions(path=[str(packages)]):
            for file in distribution.files or ():
                top = file.parts[0].removesuffix(".py").split(".")[0]
                if top in modules:
                    found.setdefault(top, f"{distribution.metadata['Name']}=={distribution.version}")
    return found
