"""The interpreter of a work notes the error that ended it, and the work sees nothing of that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from atelier.agent.uncaught import noted, noting

HANDLED = (
    "import sys, traceback\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    traceback.print_exc()\n    sys.exit(1)"
)
FAKE = "print('Traceback (most recent call last):\\nRuntimeError: CUDA out of memory')\n"


def run(folder: Path, code: str, *options: str, **more: str) -> tuple[subprocess.CompletedProcess[str], str | None]:
    """A script run to its end, and what was noted of it."""
    (folder / "train.py").write_text(code)
    environment = noting({"PATH": os.environ["PATH"], **more}, folder / "uncaught")
    argv = [sys.executable, *options, "train.py"]
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=30, check=False)
    return done, noted(folder / "uncaught")


def test_an_uncaught_error_is_noted_as_it_is_shown(tmp_path: Path) -> None:
    done, told = run(
        tmp_path, "try:\n    open('none')\nexcept OSError as problem:\n    raise ValueError('字') from problem"
    )
    assert done.returncode == 1
    assert told == done.stderr
    assert told.endswith("ValueError: 字\n")


def test_a_syntax_error_is_noted(tmp_path: Path) -> None:
    done, told = run(tmp_path, "def f(:\n")
    assert (done.returncode, told) == (1, done.stderr)
    assert "SyntaxError: " in done.stderr


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        (f"{FAKE}raise SystemExit(1)", 1),
        (HANDLED, 1),
        ("import threading\nthread = threading.Thread(target=lambda: 1 / 0)\nthread.start()\nthread.join()", 0),
        ("import os\nif os.fork() == 0:\n    1 / 0\nos.wait()", 0),
        ("import os\nif os.fork() == 0:\n    raise SystemExit\nos.wait()\nraise SystemExit('no')", 1),
    ],
    ids=["printed", "handled", "a thread's", "a child's", "a child that ends well"],
)
def test_where_nothing_was_uncaught_that_is_noted(tmp_path: Path, code: str, exit_code: int) -> None:
    done, told = run(tmp_path, code)
    assert (done.returncode, told) == (exit_code, "")


@pytest.mark.parametrize(
    "code",
    [
        "import sys\nsys.excepthook = lambda *told: None\n1 / 0",
        "import os\nos._exit(1)",
        "import os\nos.kill(os.getpid(), 9)",
    ],
)
def test_what_can_not_be_known_is_not_told(tmp_path: Path, code: str) -> None:
    assert run(tmp_path, code)[1] is None


def test_the_work_sees_nothing_of_it(tmp_path: Path) -> None:
    """Neither in its path, nor in its environment, nor in that of what it starts."""
    code = "import os, sys\nprint(sorted(os.environ), sys.path, 'sitecustomize' in sys.modules)\n"
    code += "print(os.environ.get('PYTHONPATH'), flush=True)\nimport subprocess\nsubprocess.run(['env'])"
    done, _ = run(tmp_path, code, PYTHONPATH="/one:/two")
    assert "uncaught" not in done.stdout.lower().replace(str(tmp_path), "")
    assert "\n/one:/two\n" in done.stdout
    assert run(tmp_path, code)[0].stdout.splitlines()[1] == "None"


def test_another_sitecustomize_has_its_turn(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "sitecustomize.py").write_text("import builtins\nbuiltins.marked = 7\n")
    done, told = run(
        tmp_path, "print(marked)\nimport sitecustomize\nprint(sitecustomize.__file__)", PYTHONPATH=str(other)
    )
    assert done.stdout == f"7\n{other}/sitecustomize.py\n", done.stderr
    assert told == ""
    (other / "sitecustomize.py").write_text("1 / 0")
    done, _ = run(tmp_path, "print('it goes on')", PYTHONPATH=str(other))
    assert (done.returncode, done.stdout) == (0, "it goes on\n")


def test_a_full_disk_hinders_nobody(tmp_path: Path) -> None:
    (tmp_path / "uncaught.part").symlink_to("/dev/full")
    done, told = run(tmp_path, "1 / 0")
    assert (done.returncode, told) == (1, None)
    assert "ZeroDivisionError" in done.stderr
