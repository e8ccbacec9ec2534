"""Processes told apart: the living, the dead that nobody has buried, and later ones with the same id."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from atelier.local import processes


def test_a_living_process_keeps_its_mark() -> None:
    assert processes.started_at(os.getpid()) == processes.started_at(os.getpid()) != ""


def test_two_processes_differ() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert processes.started_at(child.pid) not in ("", processes.started_at(os.getpid()))
        child.communicate()


def test_a_zombie_is_no_process() -> None:
    child = os.posix_spawn(sys.executable, [sys.executable, "-c", ""], os.environ)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert os.path.exists(f"/proc/{child}/stat")
    assert processes.started_at(child) == ""
    os.waitpid(child, 0)


def test_nobody_has_no_mark() -> None:
    assert processes.started_at(2**22 + 1) == ""


def test_without_patience_nobody_hears_of_his_end() -> None:
    tells = "import signal, time\nsignal.signal(15, lambda *_: print('asked', flush=True))\nprint('up', flush=True)\n"
    with subprocess.Popen([sys.executable, "-c", f"{tells}time.sleep(60)"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        processes.end(lambda: [child.pid] if child.poll() is None else [], patience_s=0.0)
        assert (child.stdout.read(), child.wait(timeout=5)) == (b"", -signal.SIGKILL)
