"""Turns an attempt's metrics into a TensorBoard event file: ``python -m atelier.agent.tensorboard METRICS FOLDER``.

It runs as a process of its own when the work has ended, so that the agent stays small.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

_MOST_STEPS = 2**63
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def main(metrics: Path, folder: Path) -> int:
    """Write one event file into ``folder``; lines that no recorder writes are left out. The number of points."""
    from tensorboardX import SummaryWriter

    count = 0
    with metrics.open("rb") as source, SummaryWriter(str(folder), write_to_disk=True) as writer:
        for line in source:
            for name, value, step, moment in _points(line):
                writer.add_scalar(name, value, count if step is None else step, moment)
                count += 1
    return count


def _points(line: bytes) -> list[tuple[str, float, int | None, float]]:
    """(name, value, step, time) of the points of a line; none of one that is torn or strange."""
    try:
        entry = json.loads(line)
        step, moment = entry["step"], float(entry["t"])
        if step is not None and not -_MOST_STEPS <= step < _MOST_STEPS:
            return []
        return [
            (str(name), _NOT_FINITE[value] if isinstance(value, str) else float(value), step, moment)
            for name, value in entry["values"].items()
        ]
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        return []


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
