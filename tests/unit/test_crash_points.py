"""Places at which a test can end a process: one process, once, at the place that was ordered, and nobody else."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

from atelier.crash_points import ENVIRONMENT, POINTS

SOURCES = Path(__file__).resolve().parents[2] / "extensions/atelier"
PASS = """
import sys
from atelier.crash_points import crash_point
for name in sys.argv[1:]:
    crash_point(name)
    print(name, flush=True)
"""


def called() -> list[str]:
    """What each call in the source names."""
    found = []
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "crash_point":
                (name,) = node.args
                assert isinstance(name, ast.Constant), f"{path}:{node.lineno} computes its name"
                found.append(str(name.value))
    return found


def test_each_registered_place_stands_in_the_source_once_and_no_other_does() -> None:
    assert sorted(called()) == sorted(POINTS)


def passing(orders: Path, *names: str) -> tuple[int, list[str]]:
    """How a process ends that comes to these places, and those that it came past."""
    environ = os.environ | {ENVIRONMENT: str(orders)}
    done = subprocess.run(
        [sys.executable, "-c", PASS, *names], env=environ, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.split()


def test_a_process_dies_at_its_place_and_the_next_one_lives(tmp_path: Path) -> None:
    orders = tmp_path / "orders"
    assert passing(orders, "a", "b") == (0, ["a", "b"])
    orders.write_text("b\n")
    assert passing(orders, "a", "b", "c") == (-signal.SIGKILL, ["a"])
    assert [path.name for path in tmp_path.iterdir()] == ["orders.done"]
    assert passing(orders, "a", "b", "c") == (0, ["a", "b", "c"])


def test_orders_are_carried_out_one_after_the_other(tmp_path: Path) -> None:
    orders = tmp_path / "orders"
    orders.write_text("b:2\na\n")
    assert passing(orders, "a", "b", "c", "b", "c") == (-signal.SIGKILL, ["a", "b", "c"])
    assert orders.read_text() == "a\n"
    assert passing(orders, "b", "b", "a") == (-signal.SIGKILL, ["b", "b"])
    assert (tmp_path / "orders.done").read_text() == "b:2\na\n"
