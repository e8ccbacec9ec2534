"""Begins a work: puts itself into the work's control group, offers itself to the kernel first, and becomes the work.

It is started by its path, ``work_launcher.py NOTE COUNT ENTRY… COMMAND…``, by the platform's interpreter, which needs
10 ms for it. A shell would need none but lose variables whose names it can't have.
"""

from __future__ import annotations

import contextlib
import os
import sys

OOM_SCORE = "500"
"""Where the computer itself runs out of memory the kernel ends the work, and neither its agent nor the service."""


def main(argv: list[str]) -> None:
    """Become the command; what hinders is written to the note, for the agent."""
    note, count, command = argv[0], int(argv[1]), argv[2 + int(argv[1]) :]
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(OOM_SCORE)
    try:
        for path in argv[2 : 2 + count]:
            with open(path, "w") as file:
                file.write("0")
        os.execv(command[0], command)
    except OSError as problem:
        with open(note, "w") as file:
            file.write(f"{problem.filename or command[0]} can't be used: {problem.strerror}.")
        sys.exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])
