"""Rows about runs: how soon a work runs and is done, beside jupyter-scheduler, nbclient, papermill and plain Python."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.report import Row, alternate
from tests.benchmarks.sides import Sides, wait_for
from tests.benchmarks.works import notebook, schedule, scheduled_state, submit, timed, wait_final, wait_state

CELLS = 300


def trivial(sides: Sides) -> list[Row]:
    """Submit → running and → done of a notebook with one trivial cell."""
    work = notebook(sides.place("trivial") / "trivial.ipynb", ["1 + 1"])
    started: list[float] = []
    peers_started: list[float] = []
    ours, peers = alternate(
        lambda: _ours_done(sides, work, started), lambda: _peer_done(sides, work, peers_started), times=7
    )
    peer = "jupyter-scheduler"
    return [
        Row(
            "submit → running",
            "s",
            started[1:],
            peer,
            peers_started[1:],
            "≤ 0.4 s",
            statistics.median(started[1:]) <= 0.4,
        ),
        Row("submit → done", "s", ours, peer, peers, "≤ 1.2 s", statistics.median(ours) <= 1.2),
    ]


def _ours_done(sides: Sides, work: Path, started: list[float]) -> float:
    began = time.perf_counter()
    run = wait_state(sides, submit(sides, work), "running")
    started.append(time.perf_counter() - began)
    wait_final(sides, run)
    return time.perf_counter() - began


def _peer_done(sides: Sides, work: Path, started: list[float]) -> float:
    began = time.perf_counter()
    job = schedule(sides, work)
    live = {"IN_PROGRESS", "COMPLETED", "FAILED"}
    wait_for(lambda: scheduled_state(sides, job) in live, 60, "the peer's job to run", 0.005)
    started.append(time.perf_counter() - began)
    wait_for(lambda: scheduled_state(sides, job) in {"COMPLETED", "FAILED"}, 60, "the peer's job to end", 0.005)
    return time.perf_counter() - began


def cells(sides: Sides) -> list[Row]:
    """A notebook of 300 one-line cells, from submit to done, beside nbclient and papermill as whole processes."""
    place = sides.place("cells")
    work = notebook(place / "cells.ipynb", [f"x{i} = {i}" for i in range(CELLS)])
    nbclient = [sides.peers / "jupyter-execute", work, "--output", "executed"]
    papermill = [sides.peers / "papermill", "--no-progress-bar", work, place / "out.ipynb"]
    ours, peers = alternate(lambda: _submitted_s(sides, work), _process(nbclient, place), times=5)
    _, slow = alternate(lambda: 0.0, _process(papermill, place), times=3, warm_up=0)
    ratio = statistics.median(ours) / statistics.median(peers)
    note = f"papermill took {statistics.median(slow):.2f} s for the same notebook."
    return [
        Row(f"{CELLS} one-line cells", "s", ours, "nbclient (`jupyter execute`)", peers, "≤ 1.1 ×", ratio <= 1.1, note)
    ]


def _submitted_s(sides: Sides, work: Path) -> float:
    return timed(lambda: wait_final(sides, submit(sides, work)))


def _process(argv: list[object], folder: Path) -> Callable[[], float]:
    words = [str(word) for word in argv]
    return lambda: timed(lambda: subprocess.run(words, check=True, capture_output=True, cwd=folder))


_TRAIN = """
import time
import numpy
weights = numpy.zeros(10)
weights += 1
with open({mark!r}, "w") as mark:
    mark.write(repr(time.time()))
print("edit {edit}")
"""


def first_step(sides: Sides) -> list[Row]:
    """Edit → first training step, beside ``python train.py``."""
    place, mark = sides.place("step"), sides.folder / "first-step"
    work = place / "train.py"
    edits = iter(range(10_000))

    def edited() -> float:
        mark.unlink(missing_ok=True)
        work.write_text(_TRAIN.format(mark=str(mark), edit=next(edits)))
        return time.time()

    def ours() -> float:
        began = edited()
        wait_final(sides, submit(sides, work))
        return float(json.loads(mark.read_text())) - began

    def peer() -> float:
        began = edited()
        subprocess.run([sides.python, work], check=True, capture_output=True)
        return float(json.loads(mark.read_text())) - began

    mine, plain = alternate(ours, peer, times=7)
    more = statistics.median(mine) - statistics.median(plain)
    note = f"a submitted edit reaches its first step {more:.2f} s later than plain Python."
    return [Row("edit → first step", "s", mine, "`python train.py`", plain, "≤ 1.5 s more", more <= 1.5, note)]


ROWS = {"trivial": trivial, "cells": cells, "step": first_step}
