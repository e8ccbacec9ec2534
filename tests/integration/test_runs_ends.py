"""How runs end: every reason caused by a real process, cancels that give time and that don't, limits, retries."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from atelier.errors import Conflict
from atelier.records import REASON_TEXT, Reason, Run
from tests.cli_driver import notebook, wait_for
from tests.service_driver import SETTINGS, Service, service_over, write

SLEEP = "import time\nprint('begun', flush=True)\ntime.sleep(60)\n"
POLL = """
    import pathlib, time, atelier
    job = atelier.current_run()
    job.should_stop()
    print("begun", flush=True)
    while not job.should_stop():
        time.sleep(0.02)
    pathlib.Path("why.txt").write_text(job.stop_reason)
    print("ended by itself")
"""
DEAF = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('begun', flush=True)\ntime.sleep(60)\n"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with images that lack something."""
    folder = tmp_path_factory.mktemp("images")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "bare"], check=True, timeout=60)
    broken = write(folder / "broken/bin", python__sh="#!/nowhere/python\n")
    broken.chmod(0o755)
    images = f"{{name: bare, python: {folder}/bare/bin/python}}, {{name: broken, python: {broken}}}"
    with service_over(settings=SETTINGS.replace("}]\n  machines", f"}}, {images}]\n  machines")) as place:
        yield place


# -- reasons ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Cause:
    """A work that ends for a reason; ``says`` is in the run's message."""

    reason: Reason
    code: str
    says: str = ""
    state: str = "failed"
    spec: dict[str, Any] = field(default_factory=dict)
    is_notebook: bool = False


TOO_MUCH = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29))\nbytearray(2**31)"
NO_SPACE = "with open('/dev/full', 'w') as file:\n    file.write('x')"
GPU_FULL = "class OutOfMemoryError(RuntimeError): pass\nraise OutOfMemoryError('CUDA out of memory. Tried to allocate')"
KILL = "import os\nos.kill(os.getpid(), 9)"
CAUSES = {
    "code": Cause(Reason.CODE_ERROR, "1 / 0", "ZeroDivisionError: division by zero (train.py, line 1)"),
    "code in a cell": Cause(Reason.CODE_ERROR, "1 / 0", "(cell 2, line 1)", is_notebook=True),
    "import": Cause(Reason.IMPORT_ERROR, "import nosuchmodule", "nosuchmodule"),
    "import in a cell": Cause(Reason.IMPORT_ERROR, "import nosuchmodule", "(cell 2, line 1)", is_notebook=True),
    "file": Cause(Reason.MISSING_FILE, "open('nosuchfile.csv')", "nosuchfile.csv"),
    "memory": Cause(Reason.OUT_OF_MEMORY, TOO_MUCH, "MemoryError (train.py, line 3)"),
    "memory of a GPU": Cause(Reason.CUDA_OUT_OF_MEMORY, GPU_FULL, "CUDA out of memory"),
    "disk": Cause(Reason.DISK_FULL, NO_SPACE, "No space left on device"),
    "killed": Cause(Reason.KILLED, KILL, "signal 9"),
    "kernel killed": Cause(Reason.KILLED, KILL, "cell 2", is_notebook=True),
    "deadline": Cause(Reason.DEADLINE, SLEEP, state="timed_out", spec={"timeout_s": 1}),
    "deadline in a cell": Cause(Reason.DEADLINE, SLEEP, state="timed_out", spec={"timeout_s": 3}, is_notebook=True),
    "stalled": Cause(Reason.STALLED, SLEEP, spec={"stall_timeout_s": 1}),
    "no kernel": Cause(Reason.KERNEL_MISSING, "1", "kernel", spec={"image": "bare"}, is_notebook=True),
    "no python": Cause(Reason.START_FAILED, "1", spec={"image": "broken"}),
    "requirements": Cause(Reason.REQUIREMENTS, "1", "requirements.txt"),
}


@pytest.fixture(scope="module")
def caused(places: Service, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """All causes at work at once: name → run."""
    begun = {}
    for name, cause in CAUSES.items():
        folder = tmp_path_factory.mktemp("cause")
        code = {"train__ipynb": notebook("ready = 1", cause.code)} if cause.is_notebook else {"train__py": cause.code}
        wanted = {"requirements__txt": "./nosuchfolder/nosuch.whl"} if name == "requirements" else {}
        begun[name] = places.submit(write(folder, **code, **wanted), **cause.spec)
    return begun


@pytest.mark.parametrize("name", CAUSES)
def test_a_reason_is_told_from_what_happened(places: Service, caused: dict[str, str], name: str) -> None:
    cause, run = CAUSES[name], places.wait(caused[name])
    assert (run.state, run.reason) == (cause.state, cause.reason), f"{run.message}\n{places.log(run.id)}"
    assert (run.attempts[0].state, run.attempts[0].reason) == (cause.state, cause.reason)
    assert cause.says in run.message
    sentence, action = REASON_TEXT[cause.reason]
    assert run.message not in {"", "Running."}
    assert run.hint == action
    assert sentence
    assert run.ended_at is not None
    if run.started_at is not None:
        took_s = (run.ended_at - run.started_at).total_seconds()
        assert took_s < (cause.spec.get("timeout_s") or 3) + 8, "the service had to end what its agent should have"


def test_what_a_broken_installation_prints_is_in_the_log(places: Service, caused: dict[str, str]) -> None:
    run = places.wait(caused["requirements"])
    assert "nosuch.whl" in places.log(run.id)
    assert run.started_at is None
    assert list(places.home.glob("envs/layers/*.ready")) == []


def test_a_killed_cell_keeps_what_came_before(places: Service, caused: dict[str, str]) -> None:
    run = places.wait(caused["kernel killed"])
    assert places.get(f"/runs/{run.id}/notebook").json()["cells"][0]["execution_count"] == 1


# -- cancel -------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def stopping(service: Service, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Works that take a cancel in different ways, all running."""
    begun = {}
    for name, code in {"polls": POLL, "sleeps": SLEEP, "deaf": DEAF, "polls, now": POLL, "deaf, now": DEAF}.items():
        begun[name] = service.submit(write(tmp_path_factory.mktemp("stop"), train__py=code))
    folder = tmp_path_factory.mktemp("stop")
    begun["cell"] = service.submit(write(folder, train__ipynb=notebook("print('whole')", SLEEP)))
    for run_id in begun.values():
        service.wait_log(run_id, "begun")
    for name, run_id in begun.items():
        service.client.cancel(run_id, now="now" in name)
    return begun


def assert_cancelled(run: Run) -> float:
    """Check a cancelled run; the seconds that it ran."""
    assert (run.state, run.reason, run.desired) == ("cancelled", "cancelled_by_user", "cancelled"), run.message
    assert run.message == REASON_TEXT[Reason.CANCELLED_BY_USER][0]
    assert run.attempts[0].state == "cancelled"
    assert run.started_at is not None
    assert run.ended_at is not None
    return (run.ended_at - run.started_at).total_seconds()


def test_code_that_asks_ends_by_itself(service: Service, stopping: dict[str, str]) -> None:
    run = service.wait(stopping["polls"])
    assert_cancelled(run)
    assert service.log(run.id).endswith("ended by itself\n")
    assert service.content(run.id, "why.txt") == b"cancel"
    assert run.attempts[0].exit_code == 0


def test_code_that_does_not_ask_gets_a_signal(service: Service, stopping: dict[str, str]) -> None:
    run = service.wait(stopping["sleeps"])
    assert_cancelled(run)
    assert run.attempts[0].exit_code == -signal.SIGTERM


def test_code_that_does_not_hear_is_killed(service: Service, stopping: dict[str, str]) -> None:
    for name in ("deaf", "deaf, now"):
        run = service.wait(stopping[name])
        assert_cancelled(run)
        assert run.attempts[0].exit_code == -signal.SIGKILL


def test_now_means_now(service: Service, stopping: dict[str, str]) -> None:
    run = service.wait(stopping["polls, now"])
    assert_cancelled(run)
    assert run.attempts[0].exit_code in {-signal.SIGTERM, -signal.SIGKILL, 0}


def test_a_cancelled_notebook_is_kept(service: Service, stopping: dict[str, str]) -> None:
    run = service.wait(stopping["cell"])
    assert_cancelled(run)
    cells = service.get(f"/runs/{run.id}/notebook").json()["cells"]
    assert cells[0]["outputs"][0]["text"] == "whole\n" or cells[0]["outputs"][0]["text"] == ["whole\n"]
    assert "begun" in str(cells[1]["outputs"])


def test_a_cancelled_run_stays_cancelled(service: Service, stopping: dict[str, str]) -> None:
    run = service.wait(stopping["polls"])
    assert service.client.cancel(run.id)["state"] == "cancelled"
    assert service.run(run.id) == run
    with pytest.raises(Conflict, match="is running"):
        busy = service.submit(write(Path(service.home) / "busy", train__py=SLEEP))
        service.wait(busy, "running")
        service.client.remove(busy)
    service.client.cancel(busy, now=True)
    assert service.wait(busy).state == "cancelled"


def test_now_ends_the_storing_of_files_too(service: Service, tmp_path: Path) -> None:
    """The work has ended by itself and left thousands of files; what is stored by then stays."""
    run_id = service.submit(write(tmp_path, train__py="for n in range(6000):\n    open(f'{n:04}.txt', 'w').write('x')"))
    wait_for(lambda: service.run(run_id).artifacts > 5, "files to be stored")
    service.client.cancel(run_id, now=True)
    run = service.wait(run_id, patience_s=20)
    assert 5 < run.artifacts < 6000
    assert [warning for warning in run.warnings if "were not kept: it was cancelled" in warning], run.warnings
    assert len(service.artifacts(run_id)) == run.artifacts
    assert service.content(run_id, "0000.txt") == b"x"


# -- limits of time -----------------------------------------------------------------------------------------------
def test_code_is_told_of_its_deadline(service: Service, tmp_path: Path) -> None:
    run = service.finish(write(tmp_path, train__py=POLL), timeout_s=2, stall_timeout_s=60)
    assert (run.state, run.reason) == ("timed_out", "deadline")
    assert service.content(run.id, "why.txt") == b"deadline"


def test_signs_of_life_keep_a_run_from_stalling(service: Service, tmp_path: Path) -> None:
    work = write(
        tmp_path,
        train__py="""
            import time, atelier
            job = atelier.current_run()
            for tell in (lambda n: print(n), lambda n: job.log(step=n, loss=n), lambda n: job.progress(n + 1, total=5)):
                for n in range(5):
                    tell(n)
                    time.sleep(0.3)
        """,
    )
    assert service.finish(work, stall_timeout_s=1.5).state == "succeeded"
