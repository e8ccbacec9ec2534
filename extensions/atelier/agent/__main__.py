"""Starts an agent: ``python -m atelier.agent FOLDER [--deliver]``; a backend does, nobody else."""

from __future__ import annotations

import sys
from pathlib import Path

from atelier.agent.attempt import Attempt
from atelier.agent.place import Place
from atelier.agent.tight import speak_or_not
from atelier.crash_points import crash_point
from atelier.errors import AtelierError
from atelier.local.processes import adopt_orphans


def main(argv: list[str]) -> int:
    """Run the attempt whose folder is given; another agent that holds its lock is left alone."""
    place = Place(Path(argv[0]))
    crash_point("agent.lock.before")
    lock = place.take_lock()
    if lock is None:
        return 0
    crash_point("agent.lock.after")
    speak_or_not()
    with lock:
        adopt_orphans()
        attempt = Attempt(place)
        try:
            return attempt.deliver() if "--deliver" in argv[1:] else attempt.run()
        except AtelierError as problem:
            print(f"error[{problem.code}]: {problem}", file=sys.stderr)
            return problem.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
