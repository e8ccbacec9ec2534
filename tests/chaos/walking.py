"""The places at which processes are killed, in parts, and what is common to the tests that do it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from atelier.crash_points import POINTS
from atelier.records import Run
from tests.chaos.mortal import FULL, Mortal

REMOVAL = [point for point in POINTS if point.startswith(("service.remove", "service.house"))]
CANCEL = [point for point in POINTS if point.startswith("service.cancel")]
EXPIRY = [point for point in POINTS if point.startswith("service.expire")]
DELIVERY = [point for point in POINTS if point.startswith(("service.recover", "agent.deliver"))]
LOSS = [point for point in POINTS if point.startswith(("service.aside", "service.lost"))]
SWEEP = [point for point in POINTS if point.startswith("service.sweep")]
MERGE = [point for point in POINTS if point.startswith("service.merge")]
BOOK = [point for point in POINTS if point.startswith(("agent.cell", "agent.notebook"))]
OTHERS = {*REMOVAL, *CANCEL, *EXPIRY, *DELIVERY, *LOSS, *SWEEP, *MERGE, *BOOK}
SERVICE = [point for point in POINTS if point.startswith(("service", "storage")) and point not in OTHERS]
AGENT = [point for point in POINTS if point.startswith(("agent", "recorder")) and point not in OTHERS]
MOST_RUNS = 10
"""So many runs are made until all places of a part were come to."""


REACHED_S = 40
"""What is left to do when a run has ended, and is done by a service that was just started, is done by then."""


def parts(points: list[str], size: int) -> list[object]:
    """The points in parts, of which each is walked with one run; in the full form each for itself."""
    count = 1 if FULL else size
    return [pytest.param(points[i : i + count], id=points[i]) for i in range(0, len(points), count)]


def name_of(points: list[str]) -> str:
    """What was done, for the table."""
    return f"killed at {points[0]}" + (f" … {points[-1]} ({len(points)} times)" if len(points) > 1 else "")


def walk(
    place: Mortal,
    points: list[str],
    work: Callable[[Path], Path],
    *,
    folder: Path,
    before: tuple[str, ...] = (),
    **spec: Any,
) -> Iterator[Run]:
    """One run after the other until all places were come to, each found whole; ``before`` are places to die at first.

    Two threads may finish one submit at once: where one dies, the other may have come past the next place.
    """
    place.order(*points)
    for number in range(MOST_RUNS):
        if before:
            place.order(*before, *[point for point in place.left if point in points])
        own = folder / str(number)
        run_id = place.submit(work(own), key=f"{points[0]} {number}", machine="gpu", **spec)
        yield place.check(run_id, own, name_of(points))
        place.settle()  # a death while the last run is cleaned up would be one while the next is started
        if set(place.left).isdisjoint(points):
            return
    all_reached(place)


def all_reached(place: Mortal) -> None:
    """A place that nobody came to would be one that nobody has tested."""
    place.until(lambda: not place.left, "all places to be reached", timeout_s=REACHED_S)
