"""Turns an attempt's metrics into a TensorBoard event file: ``python -m atelier.agent.tensorboard METRICS FOLDER``.

It runs as a process of its own when the work has ended, so that the agent stays small. A point costs 30 to 150 µs, a
line that is passed over 1 µs: of long metrics only every k-th line of its kind is taken. The metrics have all.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

MOST_POINTS = 200_000
"""About as many are written; more than TensorBoard draws, which samples 1000 of each curve."""

_MOST_STEPS = 2**63
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_OF_NUMBERS = b"0123456789.eE+-"


def main(metrics: Path, folder: Path, *, most_points: int = MOST_POINTS) -> int:
    """Write one event file into ``folder``; lines that no recorder writes are left out. The number of points."""
    from tensorboardX import SummaryWriter

    count = 0
    with SummaryWriter(str(folder), write_to_disk=True) as writer:
        for number, line in _thinned(metrics, most_points):
            for name, value, step, moment in _points(line):
                try:
                    writer.add_scalar(name, value, number if step is None else step, moment)
                except (ValueError, TypeError):
                    continue  # its file format has no such name or number
                count += 1
    return count


def _thinned(metrics: Path, most_points: int) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers; those with the same names are thinned together, so that rare metrics stay whole.

    Of each block of k one is taken, at a place that moves on: what alternates does not vanish.
    """
    with metrics.open("rb") as source:
        counts = Counter(map(_kind, source))
    points = {kind: count * max(1, kind.count(b":") - 3) for kind, count in counts.items()}
    is_long = sum(points.values()) > most_points
    share = max(1, most_points // max(1, len(points)))
    strides = {kind: -(-count // share) if is_long else 1 for kind, count in points.items()}
    seen: Counter[bytes] = Counter()
    with metrics.open("rb") as source:
        for number, line in enumerate(source):
            kind = _kind(line)
            block, place = divmod(seen[kind], strides.get(kind, 1))
            seen[kind] += 1
            if place == block % strides.get(kind, 1):
                yield number, line


def _kind(line: bytes) -> bytes:
    """A line without its numbers: cheaper than reading it, and the same for lines of the same names."""
    return line.translate(None, _OF_NUMBERS)


def _points(line: bytes) -> list[tuple[str, float, int | None, float]]:
    """(name, value, step, time) of the points of a line; none of one that is torn or strange."""
    try:
        entry = json.loads(line)
        step, moment = entry["step"], float(entry["t"])
        if step is not None and not (type(step) is int and -_MOST_STEPS <= step < _MOST_STEPS):
            return []
        return [
            (str(name), _NOT_FINITE[value] if isinstance(value, str) else float(value), step, moment)
            for name, value in entry["values"].items()
        ]
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        return []


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
