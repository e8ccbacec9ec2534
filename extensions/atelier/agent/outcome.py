"""How a work ended, decided from evidence: exit code, signal, the user's own error, the order to stop."""

from __future__ import annotations

import errno
import json
import re
import signal
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from atelier.local.plain import read_small

PREEMPTED_EXIT_CODE = 75
"""EX_TEMPFAIL: try again later."""

MOST_RESULT_BYTES = 8 << 20
MOST_WORD_BYTES = 1 << 10
MOST_MESSAGE_BYTES = 16 << 10
MOST_TRACEBACK_BYTES = 64 << 10
"""What is told of an error: the service takes some MiB at once, in which a character may need six bytes for one."""

_STOPPED = {
    "cancel": ("cancelled", "cancelled_by_user"),
    "deadline": ("timed_out", "deadline"),
    "stalled": ("failed", "stalled"),
    "preempt": ("preempted", "preempted"),
    "memory": ("failed", "out_of_memory"),
    "disk_quota": ("failed", "disk_quota"),
}


_CRASHES = {
    signal.SIGSEGV: "segmentation fault",
    signal.SIGBUS: "bus error",
    signal.SIGFPE: "arithmetic error",
    signal.SIGILL: "illegal instruction",
    signal.SIGABRT: "aborted",
}
"""Signals that a process brings upon itself."""

CRASH_HINT = (
    "Put 'import faulthandler; faulthandler.enable()' first to see where it was, and check the versions of compiled "
    "packages."
)
EXIT_HINT = "The log's last lines may tell why: mend the code and submit again."
INPUT_HINT = "A background run can't ask for input: pass it as a parameter."

_ENDS = {"succeeded", "lost"} | {state for state, _ in _STOPPED.values()}


@dataclass(frozen=True)
class UserError:
    """The user's own error: its class, message, traceback, and where it was raised."""

    kind: str
    message: str
    traceback: str
    cell: int | None = None
    file: str | None = None
    line: int | None = None

    def shortened(self) -> UserError:
        """The same, no longer than it can be told."""
        return replace(
            self,
            kind=shortened(self.kind, MOST_WORD_BYTES),
            message=shortened(self.message, MOST_MESSAGE_BYTES),
            traceback=shortened(self.traceback, MOST_TRACEBACK_BYTES),
            file=self.file and shortened(self.file, MOST_MESSAGE_BYTES),
        )


@dataclass(frozen=True)
class Result:
    """An attempt's end, as ``result.json`` and the service have it."""

    state: str
    reason: str | None = None
    message: str | None = None
    exit_code: int | None = None
    error: UserError | None = None
    hint: str | None = None
    """The next action, where the reason's own doesn't fit."""

    def as_json(self) -> dict[str, Any]:
        """All of it, its texts as long as the service takes them."""
        message = self.message and shortened(self.message, MOST_MESSAGE_BYTES)
        return asdict(replace(self, message=message, error=self.error and self.error.shortened()))


def shortened(text: str, most_bytes: int) -> str:
    """A text of hardly more than so many bytes of UTF-8: its head and its tail, and between them how much is left out.

    What is no character becomes what its escape shows, for the service takes none of it.
    """
    data = text.encode(errors="backslashreplace")
    if len(data) <= most_bytes:
        return data.decode()
    half = most_bytes // 2
    head, tail = data[:half].decode(errors="ignore"), data[-half:].decode(errors="ignore")
    return f"{head}[… {len(data) - len(head.encode()) - len(tail.encode())} bytes are left out …]{tail}"


def written_end(path: Path) -> dict[str, Any] | None:
    """The end that an agent has written before it died; None where it has not, or the run has spoilt it."""
    try:
        told = json.loads(read_small(path, MOST_RESULT_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) and str(told.get("state")) in _ENDS else None


def stopped(order: str, exit_code: int | None = None, *, words: str = "") -> Result:
    """The end of a work that was told to stop; ``words`` say what led to it, where the reason doesn't say it all."""
    state, reason = _STOPPED[order]
    return Result(state, reason, words or None, exit_code=exit_code)


def failed(error: UserError | None, exit_code: int | None, *, oom_killed: bool = False) -> Result:
    """The end of a work that failed by itself.

    ``exit_code`` is negative for a signal, as `subprocess` has it; ``oom_killed`` says that the kernel ended a process
    of this work for memory.
    """
    if error is not None:
        reason, message = classify(error)
        return Result("failed", reason, message, exit_code, error, INPUT_HINT if _asks_for_input(error) else None)
    if oom_killed:
        return Result("failed", "out_of_memory", None, exit_code)
    message = f"The run's process {how_ended(exit_code)}."
    if exit_code is not None and -exit_code in _CRASHES:
        return Result("failed", "killed", message, exit_code, hint=CRASH_HINT)
    if exit_code is not None and exit_code < 0:
        return Result("failed", "killed", message, exit_code)
    return Result("failed", "code_error", f"The code ended with exit code {exit_code}.", exit_code, hint=EXIT_HINT)


def how_ended(exit_code: int | None) -> str:
    """What an exit code says of a process, as `failed` has it: "was ended by signal 9", say."""
    if exit_code is None:
        return "ended, by what is not known"
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    crash = _CRASHES.get(-exit_code)  # type: ignore[call-overload]
    return f"crashed in native code ({crash})" if crash else f"was ended by signal {-exit_code}"


def _asks_for_input(error: UserError) -> bool:
    kind = error.kind.rsplit(".", 1)[-1]
    return kind == "StdinNotImplementedError" or (kind == "EOFError" and error.message == "EOF when reading a line")


def classify(error: UserError) -> tuple[str, str]:
    """The reason of a user's error, and its sentence with the place in his code."""
    place = _place(error)
    first = error.message.strip().splitlines()[0][:300] if error.message.strip() else ""
    kind = shortened(error.kind, MOST_WORD_BYTES)
    words = f"{kind}: {first}" if first else kind
    return _reason(error), f"{words}{place}"


def _reason(error: UserError) -> str:
    """The reason by the class of the error, and by what only such errors say; what the code printed doesn't matter."""
    kind, message = error.kind.rsplit(".", 1)[-1], error.message
    if kind not in _LONG_WINDED:  # below the first line may stand what was printed after the error
        message = message.partition("\n")[0]
    if kind in _BY_KIND:
        return _BY_KIND[kind]
    if (memory := _of_memory(kind, message)) is not None:
        return memory
    return "disk_full" if kind.endswith("Error") and _DISK.search(message) else "code_error"


def _of_memory(kind: str, message: str) -> str | None:
    if _HOST_MEMORY.search(message):
        return "out_of_memory"
    if kind in _GPU_MEMORY_KINDS or (kind in _GPU_KINDS and _GPU_MEMORY.search(message)):
        return "cuda_out_of_memory"
    return "out_of_memory" if kind.endswith("MemoryError") else None


_BY_KIND = {"ModuleNotFoundError": "import_error", "ImportError": "import_error", "FileNotFoundError": "missing_file"}
_HOST_MEMORY = re.compile(
    r"can't allocate memory|OOM when allocating .* by allocator cpu|device:CPU:\d+ by allocator", re.S
)
"""torch's allocator, TensorFlow's on the host."""

_LONG_WINDED = frozenset({"ResourceExhaustedError"})
"""TensorFlow tells what was exhausted after the call that needed it."""

_GPU_MEMORY_KINDS = frozenset({"OutOfMemoryError", "ResourceExhaustedError"})
_GPU_KINDS = frozenset({"RuntimeError", "AcceleratorError", "InternalError", "XlaRuntimeError", "JaxRuntimeError"})
_GPU_MEMORY = re.compile(r"CUDA out of memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|RESOURCE_EXHAUSTED")
_DISK = re.compile(
    rf"\[Errno (?:{errno.ENOSPC}|{errno.EDQUOT})\]"
    rf"|\(os error (?:{errno.ENOSPC}|{errno.EDQUOT})\)"
    r"|^database or disk is full$"
)
"""Python's own, those of libraries in Rust (safetensors, tokenizers), SQLite's."""


def _place(error: UserError) -> str:
    if error.cell is not None:
        return f" (cell {error.cell}, line {error.line})" if error.line else f" (cell {error.cell})"
    if error.file is not None:
        return f" ({error.file}, line {error.line})"
    return ""


_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_TRACEBACK = "Traceback (most recent call last):"
_FRAME = re.compile(r'^  File "(?P<file>.+)", line (?P<line>\d+)(?:, in .+)?$', re.M)
_LAST = re.compile(r"^(?P<kind>[A-Za-z_][\w.]*)(?:: (?P<message>.*))?$", re.S)
_SYNTAX = re.compile(
    r'^  File "(?P<file>.+)", line (?P<line>\d+)\n(?:.*\n)*?'
    r"(?P<kind>\w*(?:Syntax|Indentation|Tab)Error): (?P<message>.*)$",
    re.M,
)


def plain(text: str) -> str:
    """A text without terminal colours."""
    return _ANSI.sub("", text)


def error_in_log(tail: str, root: str) -> UserError | None:
    """The last Python traceback at the end of a log; paths below ``root`` become relative to it."""
    tail = plain(tail)
    start = tail.rfind(_TRACEBACK)
    if start < 0:
        return _syntax_error(tail, root)
    block = tail[start:].rstrip("\n")
    lines = block.split("\n")
    last = next((i for i in range(1, len(lines)) if lines[i] and not lines[i].startswith(" ")), None)
    if last is None:
        return None
    match = _LAST.match("\n".join(lines[last:]))
    if match is None:
        return None
    own = [frame for frame in _FRAME.finditer(block) if frame["file"].startswith(root)] or list(_FRAME.finditer(block))
    file, line = (own[-1]["file"], int(own[-1]["line"])) if own else (None, None)
    shown = block.replace(f"{root}/", "")
    return UserError(
        match["kind"], match["message"] or "", shown, None, file.replace(f"{root}/", "") if file else None, line
    )


def _syntax_error(tail: str, root: str) -> UserError | None:
    found = list(_SYNTAX.finditer(tail))
    if not found:
        return None
    match = found[-1]
    file = match["file"].replace(f"{root}/", "")
    return UserError(match["kind"], match["message"], match[0].replace(f"{root}/", ""), None, file, int(match["line"]))
