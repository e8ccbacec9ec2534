"""What `make env` has to build: which environments, from which locks, where, and how much of it is still missing."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import machine
from tools.machine import Refusal

ROOT = Path(__file__).resolve().parent.parent
CHOICE = "envs/.choice"
PYTHON_TAG = f"py{sys.version_info[0]}{sys.version_info[1]}"


@dataclass(frozen=True)
class Sizes:
    """Bytes that one lock makes pip's clients fetch, and that lie on the disk afterwards; 0 when nobody knows."""

    download_bytes: int = 0
    installed_bytes: int = 0


@dataclass(frozen=True)
class Environment:
    """One Python environment that a lock describes. ``framework`` is the distribution whose version is shown."""

    name: str
    title: str
    framework: str
    lock: Path
    folder: Path
    sizes: Sizes

    @property
    def lock_sha256(self) -> str:
        """The identity of what is installed."""
        return hashlib.sha256(self.lock.read_bytes()).hexdigest()

    @property
    def python(self) -> Path:
        """Its interpreter, there or not."""
        return self.folder / "bin" / "python"

    @property
    def marker(self) -> Path:
        """The file that is written last: without it the folder is a ruin of an interrupted build."""
        return self.folder / ".ready"

    def state(self) -> dict[str, str]:
        """What the marker says was installed; empty when the environment is not there."""
        return read_json(self.marker) if self.python.exists() else {}

    @property
    def is_current(self) -> bool:
        """Whether lock and interpreter are those of now; our own wheel is looked at apart."""
        state = self.state()
        return state.get("lock") == self.lock_sha256 and state.get("python") == PYTHON_TAG


@dataclass(frozen=True)
class Plan:
    """Everything that one `make env` is about."""

    home: Path
    platform: Environment
    images: tuple[Environment, ...]

    @property
    def missing(self) -> list[Environment]:
        """Environments that must be made from nothing."""
        return [each for each in (self.platform, *self.images) if not each.is_current]


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty when it is missing or torn."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Put the object in place in one step, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    new.write_text(json.dumps(content, indent=2) + "\n")
    new.replace(path)


def atelier_home(environ: Mapping[str, str]) -> Path:
    """``ATELIER_HOME``, else ``~/.local/share/atelier``."""
    named = environ.get("ATELIER_HOME")
    return Path(named).expanduser().absolute() if named else Path.home() / ".local/share/atelier"


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Where downloads are kept: our own, since installed files are hard links into it and lose their write bits."""
    if environ.get("UV_CACHE_DIR"):
        return Path(environ["UV_CACHE_DIR"]).absolute()
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "atelier/uv"


def make_plan(environ: Mapping[str, str] = os.environ) -> Plan:
    """Read IMAGES, LOCK_DIR and ATELIER_HOME, and find the lock of each environment.

    Without IMAGES they are what the home remembers.

    Raises
    ------
    Refusal
        An image that isn't there, or a LOCK_DIR without any lock in it.
    """
    home = atelier_home(environ)
    locks = Path(environ["LOCK_DIR"]).expanduser().absolute() if environ.get("LOCK_DIR") else None
    if locks and not any(locks.glob("*.txt")):
        raise Refusal(f"LOCK_DIR={locks} holds no lock: put <image>.txt (and platform.txt, if you like) there.")
    lock = _lock_of("platform", "requirements.txt", locks)
    base = Environment("platform", "JupyterHub and JupyterLab", "jupyterhub", lock, ROOT / ".venv", _sizes(lock))
    names = environ.get("IMAGES", "").replace(",", " ").split() or remembered_images(home)
    return Plan(home, base, tuple(_image(name, home, locks) for name in dict.fromkeys(names)))


def remembered_images(home: Path) -> list[str]:
    """The images of a home: those that were asked for last and those that are there; all for a new home."""
    asked = read_json(home / CHOICE).get("images", [])
    return [name for name in known_images() if name in asked or is_noted(home, name)] or known_images()


def is_noted(home: Path, image: str) -> bool:
    """Whether a home offers an image, so that it has to be kept up to date."""
    return (home / "envs" / f"{image}.json").exists()


def remember_images(plan: Plan) -> None:
    """Keep what was asked for, also when the build is interrupted."""
    choice = {"images": [image.name for image in plan.images]}
    if read_json(plan.home / CHOICE) != choice:
        write_json(plan.home / CHOICE, choice)


def known_images() -> list[str]:
    """Names of the folders below ``images/`` that describe an image."""
    return sorted(path.parent.name for path in ROOT.glob("images/*/image.toml"))


def _image(name: str, home: Path, locks: Path | None) -> Environment:
    import tomllib  # absent before Python 3.11, which is refused only after this module is imported

    if name not in known_images():
        raise Refusal(f"IMAGES names {name!r}, which there is not; there are: {', '.join(known_images())}.")
    about = tomllib.loads((ROOT / "images" / name / "image.toml").read_text())
    variant = about["with_nvidia_driver" if machine.has_nvidia_driver() else "otherwise"]
    lock = _lock_of(name, variant["lock"], locks)
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    return Environment(
        name, about["title"], variant["framework"], lock, home / "envs" / f"{name}-{digest}-{PYTHON_TAG}", _sizes(lock)
    )


def _lock_of(name: str, ours: str, locks: Path | None) -> Path:
    theirs = locks / f"{name}.txt" if locks else None
    return theirs if theirs and theirs.is_file() else ROOT / "images" / name / ours


def _sizes(lock: Path) -> Sizes:
    if not lock.is_relative_to(ROOT):
        return Sizes()
    known = read_json(ROOT / "images/sizes.json").get(str(lock.relative_to(ROOT)), {})
    return Sizes(known.get("download_bytes", 0), known.get("installed_bytes", 0))


def digest_of(files: Iterable[Path]) -> str:
    """One sha256 over names and contents of files below the checkout."""
    total = hashlib.sha256()
    for path in sorted(files):
        total.update(f"{path.relative_to(ROOT)}\0{path.stat().st_size}\0".encode())
        total.update(path.read_bytes())
    return total.hexdigest()
