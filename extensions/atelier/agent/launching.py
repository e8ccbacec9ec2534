"""How a work's first process is begun: by a launcher that puts it into its control group before any code of it runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from atelier.local.cgroups import ControlGroup
from atelier.local.plain import read_small

PROGRAM = Path(__file__).with_name("work_launcher.py")
MOST_NOTE_BYTES = 64 << 10


@dataclass(frozen=True)
class Launcher:
    """Makes command lines. ``note`` is where a launch that failed is told; ``group`` None puts the work into none."""

    note: Path
    group: ControlGroup | None = None

    def argv(self, command: Sequence[str]) -> list[str]:
        """The command line that begins a command, whose first word is a path."""
        entries = [str(path) for path in self.group.entries] if self.group else []
        return [sys.executable, "-I", "-S", str(PROGRAM), str(self.note), str(len(entries)), *entries, *command]

    def problem(self) -> str | None:
        """Why the command was not begun; None when it was."""
        try:
            return read_small(self.note, MOST_NOTE_BYTES).decode(errors="replace")
        except OSError:
            return None
