"""The peers that `make bench` measures beside us: one environment from a lock of their own, made when it is missing."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from tools import machine
from tools.machine import Refusal
from tools.plan import PYTHON_TAG, ROOT, cache_folder

LOCK = ROOT / "tests/benchmarks/requirements.txt"


def main() -> int:
    """Make the environment; 1 and one line on stderr when that can't be done."""
    os.environ.setdefault("UV_CACHE_DIR", str(cache_folder(os.environ)))
    try:
        install(peers_folder())
    except Refusal as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return 1
    return 0


def peers_folder() -> Path:
    """Where the peers of this lock are installed, there or not."""
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    return ROOT / ".test-home" / f"peers-{digest}-{PYTHON_TAG}"


def install(folder: Path) -> None:
    """Install the peers as their documentation says, and compile them: neither side starts at a disadvantage."""
    if (folder / ".ready").exists():
        return
    print(f"peers: installing {LOCK.name} into {folder}", flush=True)
    machine.run(f"make {folder}", sys.executable, "-m", "venv", "--clear", "--without-pip", folder)
    argv = "pip sync --quiet --require-hashes --compile-bytecode --python".split()
    machine.run("install the peers", ROOT / ".venv/bin/uv", *argv, folder / "bin/python", LOCK)
    (folder / ".ready").touch()


if __name__ == "__main__":
    sys.exit(main())
