"""Small works, and how each side is given them and asked about them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from atelier import submission
from atelier.bundle.snapshot import write_bundle
from tests.benchmarks.sides import Sides, wait_for

FINAL = {"succeeded", "failed", "cancelled", "timed_out", "lost"}


def notebook(path: Path, cells: Sequence[str]) -> Path:
    """Write a notebook with these code cells."""
    fresh = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": source, "outputs": [], "execution_count": None}
        for i, source in enumerate(cells)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path.write_text(
        json.dumps({"cells": fresh, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5})
    )
    return path


def submit(sides: Sides, work: Path, *, python: Path | None = None) -> str:
    """Submit a work to our service as `atelier.submit` does, to run in the kernels' environment; the run's id."""
    ready = submission.prepare(work, {}, submission.Order())
    plan = submission.capture(ready)
    place = {"image": submission.CURRENT, "python": str(python or sides.python), "machine": None}
    spec = submission.spec_of(ready, plan, place)
    bundle = sides.folder / "bundle.tar.zst"
    spec["bundle"] = write_bundle(plan, bundle)
    sides.client.put_bundle(bundle, spec["bundle"])
    return str(sides.client.submit(spec, source=submission.source_of(plan))["id"])


def wait_state(sides: Sides, run_id: str, state: str) -> str:
    """Wait until a run has reached a state, or has ended; its id."""
    wait_for(lambda: sides.client.run(run_id)["state"] in {state, *FINAL}, 120, f"run {run_id} to be {state}", 0.005)
    return run_id


def wait_final(sides: Sides, run_id: str, timeout_s: float = 120) -> str:
    """Wait until a run has succeeded; its id."""
    state = wait_for(lambda: _final(sides, run_id), timeout_s, f"run {run_id} to end", 0.005)
    if state != "succeeded":
        raise RuntimeError(f"run {run_id} {state}: {sides.client.run(run_id)['message']}")
    return run_id


def _final(sides: Sides, run_id: str) -> str | None:
    state = str(sides.client.run(run_id)["state"])
    return state if state in FINAL else None


def schedule(sides: Sides, work: Path) -> str:
    """Give a notebook to the peers' jupyter-scheduler; the job's id."""
    server, root = sides.peer_server, sides.folder / "peer-home"
    shutil.copy(work, root / work.name)
    environment = server.get("/scheduler/runtime_environments")[0]["name"]
    body: dict[str, Any] = {"input_uri": work.name, "name": work.stem, "runtime_environment_name": environment}
    return str(server.post("/scheduler/jobs", body | {"output_formats": ["ipynb"]})["job_id"])


def scheduled_state(sides: Sides, job: str) -> str:
    """The state of a job of the peers'; a fresh one reads STOPPED until its executor is up, so that is not an end."""
    return str(sides.peer_server.get(f"/scheduler/jobs/{job}")["status"])


def timed(action: Any) -> float:
    """Seconds that an action takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began
