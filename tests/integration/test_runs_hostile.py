"""Runs that put into their attempt's folder what nobody should wait for, or say more than anybody takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli_driver import notebook
from tests.service_driver import Service, write

LONG = {
    "a key": "{}[tuple(range(700000))]",
    "a message": "raise ValueError('the head ' + '数' * 720000 + ' the tail')",
}
HANG = """
    import os, time
    place = os.path.dirname(os.environ["ATELIER_RUN_DIR"])
    for name in ("group.json", "result.json", "uncaught", ".result.json.part", "work-time", "before.json"):
        if os.path.lexists(f"{place}/{name}"):
            os.remove(f"{place}/{name}")
        MAKE
    time.sleep(0.5)
    os.kill(os.getppid(), 9)
    time.sleep(30)
"""
PIPE, ENDLESS = 'os.mkfifo(f"{place}/{name}")', 'os.symlink("/dev/zero", f"{place}/{name}")'


@pytest.mark.parametrize("kind", ["py", "ipynb"])
@pytest.mark.parametrize("code", LONG.values(), ids=LONG)
def test_an_error_with_a_long_message_is_the_codes(service: Service, tmp_path: Path, code: str, kind: str) -> None:
    source = code if kind == "py" else notebook(code)
    run = service.finish(write(tmp_path, **{f"train__{kind}": source}))
    assert (run.state, run.reason, len(run.attempts)) == ("failed", "code_error", 1), run.message
    (attempt,) = run.attempts
    assert attempt.error is not None
    assert attempt.error.kind in {"KeyError", "ValueError"}
    assert "bytes are left out" in attempt.error.message
    assert len(attempt.error.message.encode()) < 32 << 10
    assert len(attempt.error.traceback.encode()) < 256 << 10


@pytest.mark.parametrize("make", [PIPE, ENDLESS], ids=["pipe", "endless"])
def test_a_run_that_hides_its_notes_holds_nobody_up(service: Service, tmp_path: Path, make: str) -> None:
    run_id = service.submit(write(tmp_path / "hostile", train__py=HANG.replace("MAKE", make)))
    other = service.finish(write(tmp_path / "other", train__py="print('fine')"), patience_s=40)
    assert other.state == "succeeded"
    run = service.wait(run_id)
    assert (run.state, run.reason) == ("lost", "agent_lost")
    assert service.finish(write(tmp_path / "next", train__py="print('fine')")).state == "succeeded"


@pytest.mark.parametrize("make", [PIPE, ENDLESS], ids=["pipe", "endless"])
def test_a_run_that_hides_how_it_ended_ends(service: Service, tmp_path: Path, make: str) -> None:
    harm = HANG.replace("MAKE", make).replace("os.kill(os.getppid(), 9)", "os._exit(1)")
    run = service.finish(write(tmp_path, train__py=harm))
    assert (run.state, run.reason) == ("failed", "code_error")


def test_a_launch_that_failed_is_not_to_be_faked(service: Service, tmp_path: Path) -> None:
    code = """
        import os, pathlib
        place = pathlib.Path(os.environ["ATELIER_RUN_DIR"]).parent
        for name in ("not-begun", *(path.name for path in place.iterdir() if path.name.startswith("not"))):
            (place / name).write_text("It was never begun.")
    """
    assert service.finish(write(tmp_path, train__py=code)).state == "succeeded"


def test_a_kernel_that_sends_no_messages_of_a_kernel_is_the_codes(service: Service, tmp_path: Path) -> None:
    code = "kernel = get_ipython().kernel\nkernel.session.send(kernel.iopub_socket, 'stream', {'name': 1, 'text': 2},"
    code += " parent=kernel.get_parent('shell'))\nimport time; time.sleep(2)"
    run = service.finish(write(tmp_path, train__ipynb=notebook("1", code)))
    assert (run.state, run.reason, len(run.attempts)) == ("failed", "code_error", 1), run.message
    assert "kernel" in run.message
    assert "cell 2" in run.message
