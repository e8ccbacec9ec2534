"""Turns an attempt's metrics into a TensorBoard event file: ``python -m atelier.agent.tensorboard METRICS FOLDER``.

It runs as a process of its own when the work has ended, so that the agent stays small.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def main(metrics: Path, folder: Path) -> int:
    """Write one event file into ``folder``; a torn last line is left out. The number of points."""
    from tensorboardX import SummaryWriter

    count = 0
    with metrics.open("rb") as source, SummaryWriter(str(folder), write_to_disk=True) as writer:
        for line in source:
            if not line.endswith(b"\n"):
                break
            entry = json.loads(line)
            for name, value in entry["values"].items():
                number = _NOT_FINITE[value] if isinstance(value, str) else float(value)
                writer.add_scalar(name, number, entry["step"] if entry["step"] is not None else count, entry["t"])
                count += 1
    return count


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
