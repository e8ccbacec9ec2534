"""What git says of the folder that a work lies in: top level, tracked files, revision, changes."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

_TIMEOUT_S = 20.0
_SUBMODULE = "160000"


@dataclass(frozen=True)
class GitState:
    """The repository that tracks a work. Paths are POSIX, below ``top``."""

    top: Path
    tracked: frozenset[str]
    submodules: tuple[str, ...]
    revision: str | None
    dirty: bool


def git_state(path: Path) -> GitState | None:
    """The state of the repository that tracks this file; None when none does, or when there is no git."""
    top_text = _git(path.parent, "rev-parse", "--show-toplevel")
    if not top_text:
        return None
    top = Path(top_text.removesuffix("\n"))
    name = os.path.relpath(path, top)
    if name.startswith("..") or not _git(top, "ls-files", "-z", "--cached", "--", f":(literal){name}"):
        return None
    listed = [line.split("\t", 1) for line in (_git(top, "ls-files", "-z", "--stage") or "").split("\0") if line]
    return GitState(
        top=top,
        tracked=frozenset(name for mode, name in listed if not mode.startswith(_SUBMODULE)),
        submodules=tuple(sorted(name for mode, name in listed if mode.startswith(_SUBMODULE))),
        revision=(_git(top, "rev-parse", "--verify", "--quiet", "HEAD") or "").strip() or None,
        dirty=bool(_git(top, "status", "--porcelain", "-z", "--untracked-files=no")),
    )


def _git(folder: Path, *arguments: str) -> str | None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments],
            capture_output=True, env=environment, stdin=subprocess.DEVNULL, timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "surrogateescape") if done.returncode == 0 else None
