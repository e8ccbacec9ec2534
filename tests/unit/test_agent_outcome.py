"""How a work ended is decided from its exit code and the traceback at the end of its log."""

from __future__ import annotations

import json
import os
import re
import signal
import textwrap
from pathlib import Path

import pytest

from atelier.agent.outcome import (
    CRASH_HINT,
    EXIT_HINT,
    INPUT_HINT,
    UserError,
    classify,
    error_in_log,
    failed,
    plain,
    stopped,
    written_end,
)
from atelier.service.attempts import FinishReport

ROOT = "/home/atelier/run/attempts/r-aaaaaaaaaa/1/work"


def log(text: str) -> str:
    return textwrap.dedent(text).replace("ROOT", ROOT)


SIMPLE = log("""
    epoch 1
    Traceback (most recent call last):
      File "ROOT/train.py", line 7, in <module>
        main()
      File "ROOT/lab/model.py", line 3, in main
        return 1 / 0
               ~~^~~
      File "/usr/lib/python3/fractions.py", line 99, in divide
        raise ZeroDivisionError
    ZeroDivisionError: division by zero
    """)


def found(text: str) -> UserError:
    error = error_in_log(text, ROOT)
    assert error is not None
    return error


def test_the_place_is_the_last_frame_of_the_users_own_code() -> None:
    error = found(SIMPLE)
    assert (error.kind, error.message) == ("ZeroDivisionError", "division by zero")
    assert (error.file, error.line) == ("lab/model.py", 3)
    assert error.traceback.startswith('Traceback (most recent call last):\n  File "train.py", line 7, in <module>')
    assert ROOT not in error.traceback
    assert classify(error) == ("code_error", "ZeroDivisionError: division by zero (lab/model.py, line 3)")


def test_colours_are_taken_out() -> None:
    coloured = SIMPLE.replace("ZeroDivisionError:", "\x1b[1;35mZeroDivisionError\x1b[0m:")
    assert found(coloured).kind == "ZeroDivisionError"
    assert plain("\x1b[31mred\x1b[0m") == "red"


def test_a_message_may_have_lines_and_may_be_missing() -> None:
    error = found(SIMPLE.replace("ZeroDivisionError: division by zero", "lab.errors.Odd: first\n  second\nthird"))
    assert (error.kind, error.message) == ("lab.errors.Odd", "first\n  second\nthird")
    assert classify(error)[1] == "lab.errors.Odd: first (lab/model.py, line 3)"
    assert classify(found(SIMPLE.replace(": division by zero", "")))[1] == "ZeroDivisionError (lab/model.py, line 3)"


def test_a_syntax_error_has_no_traceback_and_is_found() -> None:
    error = found(
        log("""
        File "ROOT/train.py", line 2
            def f(:
                  ^
        SyntaxError: invalid syntax
        """).replace('\nFile "', '\n  File "')
    )
    assert (error.kind, error.message, error.file, error.line) == ("SyntaxError", "invalid syntax", "train.py", 2)


@pytest.mark.parametrize(
    "text", ["", "all is well\n", "Traceback (most recent call last):\n", "Traceback (most recent call last):\n  File"]
)
def test_where_there_is_no_error_none_is_found(text: str) -> None:
    assert error_in_log(text, ROOT) is None


@pytest.mark.parametrize(
    ("kind", "message", "reason"),
    [
        ("ModuleNotFoundError", "No module named 'x'", "import_error"),
        ("ImportError", "cannot import name 'y'", "import_error"),
        ("FileNotFoundError", "[Errno 2] No such file or directory: 'x'", "missing_file"),
        ("MemoryError", "", "out_of_memory"),
        ("numpy._core._exceptions._ArrayMemoryError", "Unable to allocate 8 TiB", "out_of_memory"),
        (
            "RuntimeError",
            "DefaultCPUAllocator: can't allocate memory: you tried it",
            "out_of_memory",
        ),
        ("torch.OutOfMemoryError", "CUDA out of memory. Tried to allocate 2 GiB", "cuda_out_of_memory"),
        ("RuntimeError", "CUDA out of memory. Tried to allocate 2 GiB", "cuda_out_of_memory"),
        ("tensorflow.python.framework.errors_impl.ResourceExhaustedError", "OOM when allocating", "cuda_out_of_memory"),
        ("RuntimeError", "CUDA error: out of memory", "cuda_out_of_memory"),
        ("RuntimeError", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`", "cuda_out_of_memory"),
        ("ResourceExhaustedError", "OOM when allocating tensor … on /device:CPU:0 by allocator cpu", "out_of_memory"),
        ("OSError", "[Errno 28] No space left on device", "disk_full"),
        ("OSError", "[Errno 122] Disk quota exceeded: 'x'", "disk_full"),
        ("safetensors_rust.SafetensorError", "I/O error: No space left on device (os error 28)", "disk_full"),
        ("sqlite3.OperationalError", "database or disk is full", "disk_full"),
        ("ResourceExhaustedError", "Graph:\n\nOOM when allocating tensor by allocator cpu", "out_of_memory"),
        ("RuntimeError", "first\nCUDA out of memory", "code_error"),
        ("ValueError", "CUDA out of memory", "code_error"),
        ("ValueError", "the database or disk is full of holes", "code_error"),
        ("OSError", "[Errno 5] Input/output error", "code_error"),
        ("KeyboardInterrupt", "", "code_error"),
        ("ValueError", "x", "code_error"),
    ],
)
def test_reasons_by_the_kind_of_error(kind: str, message: str, reason: str) -> None:
    assert classify(UserError(kind, message, ""))[0] == reason


def test_an_exit_code_without_an_error_is_told() -> None:
    told = {"state": "failed", "reason": "code_error", "message": "The code ended with exit code 3.", "exit_code": 3}
    assert failed(None, 3).as_json() == told | {"error": None, "hint": EXIT_HINT}
    assert failed(None, -9).reason == "killed"
    assert failed(None, -9, oom_killed=True).reason == "out_of_memory"
    assert failed(None, -9).message == "The run's process was ended by signal 9."


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGSEGV, "segmentation fault"),
        (signal.SIGBUS, "bus error"),
        (signal.SIGFPE, "arithmetic error"),
        (signal.SIGILL, "illegal instruction"),
        (signal.SIGABRT, "aborted"),
    ],
)
def test_a_crash_is_told_as_one(number: int, words: str) -> None:
    told = failed(None, -number)
    assert (told.reason, told.hint) == ("killed", CRASH_HINT)
    assert told.message == f"The run's process crashed in native code ({words})."


@pytest.mark.parametrize(
    ("kind", "message", "hint"),
    [
        ("EOFError", "EOF when reading a line", INPUT_HINT),
        ("StdinNotImplementedError", "raw_input was called", INPUT_HINT),
        ("EOFError", "Ran out of input", None),
    ],
)
def test_who_asks_for_input_is_told_what_to_do(kind: str, message: str, hint: str | None) -> None:
    assert failed(UserError(kind, message, ""), 1).hint == hint


ENDS = {
    "cancel": ("cancelled", "cancelled_by_user"),
    "deadline": ("timed_out", "deadline"),
    "stalled": ("failed", "stalled"),
    "preempt": ("preempted", "preempted"),
}


@pytest.mark.parametrize("order", ENDS)
def test_an_order_to_stop_is_the_end_that_is_told(order: str) -> None:
    assert (stopped(order, 0).state, stopped(order, 0).reason) == ENDS[order]


def test_a_cell_is_the_place_in_a_notebook() -> None:
    assert classify(UserError("ValueError", "x", "", cell=3, line=2))[1] == "ValueError: x (cell 3, line 2)"
    assert classify(UserError("ValueError", "x", "", cell=3))[1] == "ValueError: x (cell 3)"
    assert len(classify(UserError("ValueError", "x" * 10_000, ""))[1]) < 400


@pytest.mark.parametrize("letter", ["x", "数", "\x00", "\ud800"])
def test_what_is_told_of_an_error_is_bounded(letter: str) -> None:
    """Head and tail stay, and what is left out between them is counted; the service takes some MiB at once."""
    long = f"the head {letter * 3_000_000} the tail"
    told = failed(UserError(letter * 3_000_000, long, long, file=f"{letter * 3_000_000}.py", line=1), 1).as_json()
    assert len(json.dumps(told)) < 2 << 20
    for text in (told["error"]["message"], told["error"]["traceback"]):
        assert text.startswith("the head ")
        assert text.endswith(" the tail")
        left_out = int(re.findall(r"\[… (\d+) bytes are left out …\]", text)[0])
        whole = long.encode(errors="backslashreplace")
        assert left_out + len(re.sub(r"\[…[^\]]*\]", "", text).encode()) == len(whole)
    FinishReport.model_validate_json(json.dumps(told))


def test_a_spoilt_end_counts_as_none(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    assert written_end(path) is None
    for text in ("", "{", "[1]", '{"state": []}', '{"state": "won"}', "[" * 100_000):
        path.write_text(text)
        assert written_end(path) is None, text
    path.write_text(json.dumps(failed(None, 3).as_json()))
    assert written_end(path) == failed(None, 3).as_json()
    path.unlink()
    os.mkfifo(path)
    assert written_end(path) is None
