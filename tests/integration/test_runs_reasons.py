"""The reason of an end: told from evidence, with what is near, and in the same words wherever one looks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from atelier.agent.outcome import CRASH_HINT, EXIT_HINT, INPUT_HINT
from atelier.records import REASON_TEXT, Reason, Run
from tests.cli_driver import Terminal, notebook
from tests.service_driver import SETTINGS, Service, service_over, write

SAYS_SO = """
    print("Traceback (most recent call last):")
    print("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB")
    raise SystemExit(1)
"""
HANDLED = """
    import sys, traceback
    try:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
    except RuntimeError:
        traceback.print_exc()
    sys.exit(3)
"""
WORKS = {
    "typo": "import jsn",
    "elsewhere": "import onlythere",
    "package": "import skimage_not, sklearn",
    "file": "open('data/trian.csv')",
    "says so": SAYS_SO,
    "handled": HANDLED,
    "crashed": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "asks": "input()",
}
HINTS = {"says so": EXIT_HINT, "handled": EXIT_HINT, "crashed": CRASH_HINT, "asks": INPUT_HINT}
CELLS = {
    "raises": "open('nosuch.bin')",
    "killed": "import os\nos.kill(os.getpid(), 9)",
    "left": "import os\nos._exit(4)",
    "late": "import time\ntime.sleep(60)",
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, dict[str, str]]]:
    """A service with a second image, and all works at their ends."""
    folder = tmp_path_factory.mktemp("reasons")
    (folder / "other/lib/python3.11/site-packages/onlythere").mkdir(parents=True)
    other = f"}}, {{name: other, python: {folder}/other/bin/python}}]\n  machines"
    with service_over(settings=SETTINGS.replace("}]\n  machines", other)) as service:
        runs = {}
        for name, code in WORKS.items():
            write(folder / name / "data", train__csv="1,2")
            runs[name] = service.submit(write(folder / name, train__py=code))
        for name, code in CELLS.items():
            more = {"timeout_s": 6} if name == "late" else {}
            runs[name] = service.submit(write(folder / name, train__ipynb=notebook("ready = 1", code)), **more)
        for run_id in runs.values():
            service.wait(run_id)
        yield service, runs


@pytest.mark.parametrize(
    ("name", "reason", "words"),
    [
        ("typo", Reason.IMPORT_ERROR, "The image 'plain' does not have it; the nearest that it has is 'json'."),
        ("elsewhere", Reason.IMPORT_ERROR, "The image 'other' has it, 'plain' does not."),
        ("file", Reason.MISSING_FILE, "The nearest file in the work's folder is 'data/train.csv'."),
        ("says so", Reason.CODE_ERROR, "The code ended with exit code 1."),
        ("handled", Reason.CODE_ERROR, "The code ended with exit code 3."),
        ("crashed", Reason.KILLED, "The run's process crashed in native code (segmentation fault)."),
        ("asks", Reason.CODE_ERROR, "EOFError: EOF when reading a line (train.py, line 1)"),
    ],
)
def test_the_reason_and_what_is_near(
    ended: tuple[Service, dict[str, str]], name: str, reason: Reason, words: str
) -> None:
    run = ended[0].run(ended[1][name])
    assert (run.reason, run.hint) == (reason, HINTS.get(name, REASON_TEXT[reason][1]))
    assert run.message.endswith(words), run.message


@pytest.mark.parametrize(
    ("name", "reason", "words"),
    [
        ("raises", Reason.MISSING_FILE, "(cell 2, line 1)"),
        ("left", Reason.CODE_ERROR, "The kernel died in cell 2: its process ended with exit code 4."),
        ("killed", Reason.KILLED, "The kernel died in cell 2: its process was ended by signal 9."),
        ("late", Reason.DEADLINE, "The run reached its time limit of 6.0 s. It was in cell 2."),
    ],
)
def test_record_notebook_and_command_line_say_the_same(
    ended: tuple[Service, dict[str, str]], name: str, reason: Reason, words: str
) -> None:
    service, runs = ended
    run = service.run(runs[name])
    assert run.reason is reason
    assert words in run.message
    kept = service.get(f"/runs/{run.id}/notebook").json()
    assert {key: kept["metadata"]["atelier_run"][key] for key in ("id", "reason", "message", "hint")} == told(run)
    last = kept["cells"][1]["outputs"][-1]
    assert "".join(last["data"]["text/plain"]).endswith(f": {run.message}\n{run.hint}")
    assert kept["cells"][0]["outputs"] == []
    shown = " ".join(Terminal(service.home, service.home).type("show", run.id).out.split())
    assert run.message in shown
    assert run.hint in shown


def test_a_cell_that_ends_its_interpreter_is_told_with_the_exit_code(ended: tuple[Service, dict[str, str]]) -> None:
    run = ended[0].run(ended[1]["left"])
    assert (run.reason, run.hint) == (Reason.CODE_ERROR, EXIT_HINT)
    assert run.message == "The kernel died in cell 2: its process ended with exit code 4."
    assert run.progress is not None
    assert (run.progress.done, run.progress.total) == (1, 2), "a cell that died is not done"
    raised = ended[0].run(ended[1]["raises"]).progress
    assert raised is not None
    assert (raised.done, raised.total) == (1, 2), "nor is one that failed"


def told(run: Run) -> dict[str, Any]:
    return {"id": run.id, "reason": run.reason, "message": run.message, "hint": run.hint}
