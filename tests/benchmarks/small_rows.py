"""Rows about the Python package itself: import, ``log()``, memory."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.benchmarks.report import Row, alternate
from tests.benchmarks.sides import Sides, children_of, rss_mb, wait_for
from tests.benchmarks.works import notebook, submit, wait_final, wait_state

OURS = Path(sys.executable)
POINTS = 20_000
RUN_POINTS = 30_000


def imports(sides: Sides) -> list[Row]:
    """How long ``import`` takes, a fresh interpreter each time."""
    ours, peers = alternate(
        lambda: _import_s(OURS, "atelier"), lambda: _import_s(sides.python, "papermill"), times=9, warm_up=2
    )
    goal = sorted(ours)[len(ours) // 2] <= 0.15
    return [Row("import", "s", ours, "import papermill", peers, "≤ 0.15 s", goal)]


def _import_s(python: Path, name: str) -> float:
    code = f"import time; t = time.perf_counter(); import {name}; print(time.perf_counter() - t)"
    return float(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, cwd="/").stdout)


_LOG = """
import time
from atelier import current_run
job = current_run()
job.log(step=0, loss=0.0)
t = time.perf_counter()
for step in range({points}):
    job.log(step=step, loss=0.5)
print((time.perf_counter() - t) / {points} * 1e6)
"""
_WRITER = """
import time, tempfile
from tensorboardX import SummaryWriter
with tempfile.TemporaryDirectory() as folder, SummaryWriter(folder) as writer:
    writer.add_scalar("loss", 0.0, 0)
    t = time.perf_counter()
    for step in range({points}):
        writer.add_scalar("loss", 0.5, step)
    writer.flush()
    print((time.perf_counter() - t) / {points} * 1e6)
"""


def log_cost(sides: Sides) -> list[Row]:
    """What one ``log()`` costs the training loop, each point on its way to the disk when it returns."""
    place = sides.place("log")
    ours, peers = alternate(
        lambda: _printed(OURS, _LOG, place), lambda: _printed(sides.python, _WRITER, place), times=5
    )
    share = sorted(ours)[len(ours) // 2] * 100 / 1e6
    note = f"at 100 points a second the loop pays {share:.2%} of its time."
    row = Row(
        "one `log()`", "µs", ours, "tensorboardX `add_scalar`", peers, "< 1 % at 100 points/s", share < 0.01, note
    )
    return [row, *_whole(sides)]


def _printed(python: Path, code: str, folder: Path) -> float:
    source = code.format(points=POINTS)
    done = subprocess.run([python, "-c", source], capture_output=True, text=True, check=True, cwd=folder)
    return float(done.stdout)


_PACED = f"""
import time
from atelier import current_run
job = current_run()
begin = time.perf_counter()
for step in range({RUN_POINTS}):
    job.log(step=step, loss=0.5)
    ahead = step / 10_000 - (time.perf_counter() - begin)
    if ahead > 0.01:
        time.sleep(ahead)
print("took", time.perf_counter() - begin)
"""


def _whole(sides: Sides) -> list[Row]:
    """10,000 points a second in a real run: how many arrive."""
    place = sides.place("paced")
    (place / "paced.py").write_text(_PACED)
    run = wait_final(sides, submit(sides, place / "paced.py", python=OURS), timeout_s=120)
    points = sides.client.metrics(run, name="loss")["points"]
    kept = len(points)
    note = f"{RUN_POINTS} points were logged at 10,000 a second in a run; {kept} arrived."
    return [Row("points kept at 10,000/s", "points", [kept], "logged", [RUN_POINTS], "all", kept == RUN_POINTS, note)]


def memory(sides: Sides) -> list[Row]:
    """Resident memory: our idle service beside a Jupyter Server with jupyter-scheduler; an agent beside an executor."""
    place = sides.place("memory")
    notebook(place / "sleep.ipynb", ["import time\ntime.sleep(4)"])
    service = rss_mb(sides.service_pid())
    run = wait_state(sides, submit(sides, place / "sleep.ipynb"), "running")
    agent = wait_for(lambda: _agent_of(run), 20, "the agent's process")
    time.sleep(2)
    ours = rss_mb(agent)
    wait_final(sides, run)
    scheduler = rss_mb(sides.peer_server.process.pid)
    executor = _executor_mb(sides, place)
    return [
        Row(
            "idle service",
            "MB",
            [service],
            "Jupyter Server with jupyter-scheduler",
            [scheduler],
            "≤ 120 MB",
            service <= 120,
        ),
        Row("agent beside its kernel", "MB", [ours], "jupyter-scheduler's executor", [executor], "≤ 60 MB", ours <= 60),
    ]


def _agent_of(run_id: str) -> int | None:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"atelier.agent" in words and any(run_id.encode() in word for word in words):
            return int(entry.name)
    return None


def _executor_mb(sides: Sides, place: Path) -> float:
    from tests.benchmarks.works import schedule, scheduled_state

    server = sides.peer_server
    job = schedule(sides, place / "sleep.ipynb")
    wait_for(lambda: scheduled_state(sides, job) == "IN_PROGRESS", 60, "the peer's job to run")
    time.sleep(2.5)
    sizes = [rss_mb(child) for child in children_of(server.process.pid) if not _is_kernel(child)]
    wait_for(lambda: scheduled_state(sides, job) in {"COMPLETED", "FAILED"}, 60, "the peer's job to end")
    return max(sizes)


def _is_kernel(pid: int) -> bool:
    return b"kernel_launcher" in Path(f"/proc/{pid}/cmdline").read_bytes()


ROWS = {"import": imports, "log": log_cost, "memory": memory}
