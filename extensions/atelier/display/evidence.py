"""Why a run waits or how it ended: the service's own sentence and next action, and what is known beside them.

The sentence and the action are the record's, never worded again here. The live view names the same facts.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from atelier.display.text import lasted
from atelier.quantities import format_bytes

STATE_WORDS = {
    "created": "Created", "queued": "Waiting", "starting": "Starting", "running": "Running", "succeeded": "Done",
    "failed": "Failed", "cancelled": "Cancelled", "timed_out": "Timed out", "preempted": "Preempted", "lost": "Lost",
}  # fmt: skip
_EXPLAINED = frozenset({"queued", "failed", "cancelled", "timed_out", "lost"})
_SILENT = frozenset({"agent_lost", "stalled"})


def state_words(run: Mapping[str, Any]) -> str:
    """The state of a run as the live view words it."""
    if run.get("desired") == "cancelled" and not run.get("ended_at"):
        return "Cancelling"
    return STATE_WORDS.get(run["state"], str(run["state"]))


def is_explained(run: Mapping[str, Any]) -> bool:
    """Whether it waits, or ended otherwise than well: what its card is for."""
    return run["state"] in _EXPLAINED


def sentence(run: Mapping[str, Any]) -> str:
    """What the service says of the run and what to do; not again what the state's word says."""
    message = run.get("message") or ""
    words = {f"{state_words(run)}.", f"{STATE_WORDS.get(run['state'])}."}
    said = not is_explained(run) and message in words
    return " ".join(filter(None, ["" if said else message, run.get("hint")]))


def facts(run: Mapping[str, Any], now: datetime | None = None) -> list[tuple[str, str]]:
    """What is known beside the sentence, by name: where in the code, how the process ended, what comes next."""
    attempt: Mapping[str, Any] = run["attempts"][-1] if run.get("attempts") else {}
    silent = run["state"] == "lost" or attempt.get("reason") in _SILENT
    known = [
        ("In the queue", _place(run)),
        ("Priority", str(run.get("priority") or "")),
        ("Next attempt", _next_attempt(run, now or datetime.now(UTC))),
        _checkpoint(run),
        ("Where", where(attempt.get("error") or {})),
        *_exit(attempt.get("exit_code")),
        ("Memory", _memory(attempt.get("usage") or {}, run.get("memory_bytes"))),
        ("Last heard of", second_words(attempt.get("last_seen_at")) if silent else ""),
    ]
    return [(name, value) for name, value in known if value]


def attempt_rows(run: Mapping[str, Any]) -> list[list[str]]:
    """Number, state, start, time taken and reason of each attempt, oldest first; none where the card says it all."""
    tries = run.get("attempts", ())
    if len(tries) < (1 if run["state"] == "queued" else 2):
        return []
    return [
        [
            str(one["n"]),
            STATE_WORDS.get(one["state"], str(one["state"])),
            second_words(one.get("started_at")) or "–",
            lasted(one) if one.get("started_at") else "–",
            one.get("message") or "–",
        ]
        for one in tries
    ]


def noticed(run: Mapping[str, Any]) -> list[str]:
    """What was noticed at submit or later, each once."""
    return list(dict.fromkeys([*run.get("source", {}).get("warnings", ()), *run.get("warnings", ())]))


def second_words(moment: str | None) -> str:
    """``"2026-11-24 05:46:07 UTC"``; empty for None."""
    return f"{datetime.fromisoformat(moment):%Y-%m-%d %H:%M:%S} UTC" if moment else ""


def where(error: Mapping[str, Any]) -> str:
    """``"cell 4 · train.ipynb · line 7"``, as far as it is known."""
    place = [f"cell {error['cell']}" if error.get("cell") else "", error.get("file") or ""]
    return " · ".join(filter(None, [*place, f"line {error['line']}" if error.get("line") else ""]))


def _place(run: Mapping[str, Any]) -> str:
    position = run.get("queue_position") if run["state"] == "queued" else None
    return "" if not position else "next" if position == 1 else f"place {position}"


def _next_attempt(run: Mapping[str, Any], now: datetime) -> str:
    """When a run is tried again; once that has passed it waits as any other."""
    moment = run.get("not_before") if run["state"] == "queued" else None
    return second_words(moment) if moment and datetime.fromisoformat(moment) > now else ""


def _checkpoint(run: Mapping[str, Any]) -> tuple[str, str]:
    step = run.get("checkpoint_step")
    if run["state"] == "queued":
        return "Goes on from", "" if step is None else f"checkpoint of step {step}"
    return "Newest checkpoint", "" if step is None else f"step {step}"


def _exit(code: int | None) -> list[tuple[str, str]]:
    """The exit code of a process, or the signal that ended it: the negative ones, as `subprocess` has it."""
    if code is None or code >= 0:
        return [("Exit code", "" if code is None else str(code))]
    try:
        return [("Signal", f"{-code} ({signal.Signals(-code).name})")]
    except ValueError:
        return [("Signal", str(-code))]


def _memory(usage: Mapping[str, float], limit_bytes: int | None) -> str:
    """The most that it used, of what its machine has: where the agent measured it."""
    peak_bytes = usage.get("memory_peak_bytes")
    if not peak_bytes:
        return ""
    return f"{format_bytes(int(peak_bytes))} at its peak" + (f", of {format_bytes(limit_bytes)}" if limit_bytes else "")
