"""Where a model comes from: the run, the git revision, the packages that are installed."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions

from atelier.exporters.card import EnvironmentLock, Lineage


def lineage(datasets: Sequence[str] = (), *, environ: Mapping[str, str] | None = None) -> Lineage:
    """The run that this process works for, and the git revision of the working directory where there is one."""
    revision = _git("rev-parse", "HEAD")
    dirty = None if revision is None else bool(_git("status", "--porcelain", "--untracked-files=no"))
    run = (os.environ if environ is None else environ).get("ATELIER_RUN_ID")
    return Lineage(run=run, git_revision=revision, git_dirty=dirty, datasets=list(datasets))


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None  # no git here is an answer: the model just has no revision
    return done.stdout.strip() if done.returncode == 0 else None


def environment_lock() -> EnvironmentLock:
    """The interpreter and all distributions that it sees."""
    packages = {str(one.metadata["Name"]): one.version for one in distributions() if one.metadata["Name"]}
    lines = [f"{name}=={version}" for name, version in packages.items()]
    return EnvironmentLock(python=platform.python_version(), packages=sorted(lines, key=str.lower))
