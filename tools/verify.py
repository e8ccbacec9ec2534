"""`make test`, `make chaos` and `make lint`: install what the tests need beside the platform, then run every check.

Usage: ``python -m tools.verify lint | test [TIER …] | chaos``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tools import machine
from tools.machine import Refusal
from tools.plan import ROOT, cache_folder

BIN = ROOT / ".venv/bin"
NODE = ROOT / ".venv/lib/node"
TIERS = ("unit", "contract", "integration", "chaos", "notebooks", "browser")
SIDE_BY_SIDE = {"contract": 3, "integration": 3, "chaos": 3, "browser": 2}
"""Tiers whose tests mostly wait for other processes, and how many of their files run at a time."""

POSTGRESQL = "/usr/lib/postgresql/*/bin/initdb"
FAKETIME = "/usr/lib/*/faketime/libfaketimeMT.so.1"


def main(argv: Sequence[str]) -> int:
    """Run what was asked for; 1 and one line on stderr when a check fails or can't be made."""
    os.environ.setdefault("UV_CACHE_DIR", str(cache_folder(os.environ)))
    started = time.monotonic()
    try:
        install_tools()
        failed = lint()
        if argv[0] == "test":
            tiers = argv[1:] or TIERS
            prepare_machine(tiers)
            failed += test(tiers)
        if argv[0] == "chaos":
            prepare_machine(("chaos",))
            failed += [] if _passes("chaos", ["python", "-m", "tests.chaos.table"]) else ["chaos"]
    except Refusal as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return 1
    print(
        f"{time.monotonic() - started:.0f} s. " + (f"Failed: {', '.join(failed)}." if failed else "All is well."),
        flush=True,
    )
    return 1 if failed else 0


def install_tools() -> None:
    """Install the test lock beside the platform's; a check of some milliseconds when it is there."""
    argv = "pip install --quiet --require-hashes --python".split()
    machine.run("install what the tests need", BIN / "uv", *argv, BIN / "python", "-r", ROOT / "tests/requirements.txt")


def lint() -> list[str]:
    """Format, rules, types and imports: the names of those that failed, after all have run."""
    steps = {
        "format": "ruff format --check --quiet",
        "rules": "ruff check --quiet",
        "types": "mypy",
        "import rules": "lint-imports",
        "JupyterLab extension's rules": "npm run --silent lint",
    }
    return [name for name, command in steps.items() if not _passes(name, command.split())]


def test(tiers: Sequence[str]) -> list[str]:
    """Run the extension's own tests, then pytest tier by tier; a tier without any test counts as failed."""
    reports = ROOT / ".test-home/reports"
    reports.mkdir(parents=True, exist_ok=True)
    failed = [] if _passes("JupyterLab extension", "npm run --silent test".split()) else ["JupyterLab extension"]
    return failed + [
        tier
        for tier in tiers
        if not _passes(tier, ["pytest", f"tests/{tier}", *_how(tier), f"--junitxml={reports / tier}.xml"])
    ]


def _how(tier: str) -> list[str]:
    side_by_side = [f"--numprocesses={SIDE_BY_SIDE[tier]}", "--dist=loadfile"] if tier in SIDE_BY_SIDE else []
    return [*side_by_side, "--durations=5"]


def prepare_machine(tiers: Sequence[str]) -> None:
    """Find or install a browser, PostgreSQL and for chaos libfaketime; environment variables tell the tests where."""
    os.environ["ATELIER_TEST_CHROMIUM"] = find_browser()
    if postgresql := find_postgresql():
        os.environ["ATELIER_TEST_POSTGRESQL"] = postgresql
    if "chaos" in tiers and (faketime := find_faketime()):
        os.environ["ATELIER_TEST_FAKETIME"] = faketime


def find_browser() -> str:
    """The ``chromium`` on PATH, else Debian's when root, else playwright's own; empty for playwright's own.

    Raises
    ------
    Refusal
        None of the three can be had.
    """
    if found := shutil.which("chromium"):
        return found
    if _install_by_apt("chromium", "fonts-dejavu-core") and (found := shutil.which("chromium")):
        return found
    if _quietly([str(BIN / "playwright"), "install", "chromium"]):
        return ""
    raise Refusal("The browser tests need a chromium: install one on PATH, or run `make test` as root on Debian.")


def find_postgresql() -> str:
    """The folder of PostgreSQL's programs, installed from Debian when root; empty when there is none."""
    if not any(Path("/").glob(POSTGRESQL[1:])):
        _install_by_apt("postgresql")
    found = sorted(Path("/").glob(POSTGRESQL[1:]))
    if not found and os.geteuid() == 0:
        raise Refusal(
            "The store's tests need PostgreSQL, and apt-get could not install it: install the package postgresql."
        )
    return str(found[-1].parent) if found else ""


def find_faketime() -> str:
    """The library that gives a process another time of day, installed from Debian when root; empty without one."""
    if not any(Path("/").glob(FAKETIME[1:])):
        _install_by_apt("libfaketime")
    found = sorted(Path("/").glob(FAKETIME[1:]))
    if not found and os.geteuid() == 0:
        raise Refusal(
            "The chaos tests need libfaketime, and apt-get could not install it: install the package libfaketime."
        )
    return str(found[-1]) if found else ""


def _install_by_apt(*packages: str) -> bool:
    apt = shutil.which("apt-get")
    if os.geteuid() != 0 or apt is None:
        return False
    print(f"installing {', '.join(packages)} with apt-get", flush=True)
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    install = [apt, "install", "--yes", "--quiet", "--no-install-recommends", *packages]
    return _quietly(install) or (_quietly([apt, "update", "--quiet"]) and _quietly(install))


def _quietly(argv: Sequence[str]) -> bool:
    """Run a program and show its last lines only when it fails."""
    done = subprocess.run(argv, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode:
        print("\n".join((done.stdout + done.stderr).splitlines()[-5:]), file=sys.stderr, flush=True)
    return done.returncode == 0


def _passes(name: str, argv: Sequence[str]) -> bool:
    """Run one check in its folder, with the programs of ``.venv`` and its node first on PATH."""
    started = time.monotonic()
    print(f"== {name}", flush=True)
    path = os.pathsep.join([str(BIN), str(NODE), os.environ.get("PATH", os.defpath)])
    environ = {**os.environ, "PATH": path}
    if argv[0] == "lint-imports":
        environ["PYTHONPATH"] = str(ROOT / "extensions")
    folder, program = (ROOT / "lab", NODE / "npm") if argv[0] == "npm" else (ROOT, BIN / argv[0])
    status = subprocess.run([str(program), *argv[1:]], cwd=folder, env=environ, check=False).returncode
    print(f"== {name}: {'passed' if status == 0 else 'FAILED'} in {time.monotonic() - started:.0f} s", flush=True)
    return status == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
