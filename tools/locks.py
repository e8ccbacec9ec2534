"""`make lock`: remake every hashed lock, prove that each one installs, and note how big it is.

No lock names a registry, so each reader's own uv and pip settings choose one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import machine
from tools.machine import Refusal
from tools.plan import ROOT, cache_folder, read_json, write_json

UV = ROOT / ".venv/bin/uv"
SIZES = ROOT / "images/sizes.json"
PLATFORM_TAG = "x86_64-manylinux_2_28"
OTHER_PYTHONS = ("3.12", "3.13")


@dataclass(frozen=True)
class Lock:
    """One lock file, what it is compiled from, and with which further arguments of uv."""

    target: str
    sources: tuple[str, ...]
    options: tuple[str, ...] = ()


LOCKS = (
    Lock(
        "images/platform/requirements.txt",
        ("pyproject.toml", "images/platform/requirements.in"),
        ("--extra", "platform", "--override", "images/platform/overrides.txt"),
    ),
    Lock(
        "images/platform/bootstrap.txt",
        ("images/platform/bootstrap.in",),
        ("--constraint", "images/platform/requirements.txt"),
    ),
    *(
        Lock(f"images/{name}.txt", ("pyproject.toml", f"images/{name}.in"), ("--extra", "notebook"))
        for name in ("pytorch/requirements", "tensorflow/requirements", "tensorflow/requirements-cuda")
    ),
    Lock("tests/requirements.txt", ("tests/requirements.in",)),
    Lock("tests/benchmarks/requirements.txt", ("tests/benchmarks/requirements.in",)),
)


def main() -> int:
    """Remake all locks; 1 and one line on stderr when one can't be made or doesn't install."""
    os.environ.setdefault("UV_CACHE_DIR", str(cache_folder(os.environ)))
    try:
        for lock in LOCKS:
            print(lock.target, flush=True)
            compile_lock(lock)
            note_sizes(lock)
    except Refusal as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return 1
    return 0


def compile_lock(lock: Lock) -> None:
    """Resolve anew for all the interpreters at once, and check that each of them finds a wheel for everything."""
    every = "--universal --python-version 3.11 --generate-hashes --upgrade --quiet".split()
    silent = "--no-header --no-annotate --no-emit-index-url --no-emit-find-links".split()
    what = f"resolve {lock.target}"
    machine.run(what, UV, "pip", "compile", *every, *silent, *lock.options, *lock.sources, "-o", lock.target, cwd=ROOT)
    for version in OTHER_PYTHONS:
        argv = (
            "pip install --dry-run --quiet --no-deps --only-binary=:all: --require-hashes --target .venv/none".split()
        )
        python = ("--python-version", version, "--python-platform", PLATFORM_TAG)
        machine.run(f"find {lock.target} for Python {version}", UV, *argv, *python, "-r", lock.target, cwd=ROOT)


def note_sizes(lock: Lock) -> None:
    """Install the lock in a throw-away environment, and write beside the images what it fetched and what it took."""
    with tempfile.TemporaryDirectory(dir=ROOT / ".venv") as folder:
        environment = Path(folder) / "environment"
        machine.run("make an environment", sys.executable, "-m", "venv", "--without-pip", environment)
        argv = "pip sync --quiet --require-hashes --compile-bytecode".split()
        python = environment / "bin/python"
        machine.run(f"install {lock.target}", UV, *argv, "--python", python, lock.target, cwd=ROOT)
        measured = {
            "lock_sha256": hashlib.sha256((ROOT / lock.target).read_bytes()).hexdigest(),
            "download_bytes": download_bytes(lock, Path(folder)),
            "installed_bytes": sum(path.lstat().st_blocks * 512 for path in environment.rglob("*")),
        }
    write_json(SIZES, dict(sorted({**read_json(SIZES), lock.target: measured}.items())))


def download_bytes(lock: Lock, folder: Path) -> int:
    """Sum of the sizes of the wheels that this interpreter takes, as the registry states them."""
    target = folder / "pylock.toml"
    argv = "pip compile --format pylock.toml --no-deps --quiet --python-version 3.11 --python-platform".split()
    machine.run(f"size {lock.target}", UV, *argv, PLATFORM_TAG, lock.target, "-o", target, cwd=ROOT)
    return sum(_biggest(package) for package in tomllib.loads(target.read_text())["packages"])


def _biggest(package: dict[str, Any]) -> int:
    return max(int(wheel.get("size", 0)) for wheel in package["wheels"])


if __name__ == "__main__":
    if shutil.which(UV) is None:
        sys.exit("error: `make lock` works with the uv of .venv: run `make env` first.")
    sys.exit(main())
