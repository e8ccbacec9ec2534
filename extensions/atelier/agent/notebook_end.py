"""Writes into the executed notebook how its run ended, for whoever reads it without the run's record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atelier.local.plain import read_small, write_whole
from atelier.reasons import REASON_TEXT, Reason

KEY = "atelier_run"
"""Of the notebook's metadata; ``atelier`` is what its user wants of a run."""

MOST_BYTES = 256 << 20

_ENDED = {
    "cancelled": "was cancelled",
    "timed_out": "ran out of time",
    "preempted": "had to give its place away",
    "lost": "was lost",
}


def stamp(path: Path, run_id: str, attempt: int, result: Mapping[str, Any]) -> None:
    """Tell the end in the notebook's metadata, and in a line below the cell that was run last.

    Nothing where the run has succeeded or there is no notebook. A second time changes nothing.
    """
    if result["state"] == "succeeded" or not path.exists():
        return
    try:
        notebook = json.loads(read_small(path, MOST_BYTES))
        end = _end(run_id, attempt, result)
        notebook["metadata"][KEY] = end
        _tell(notebook["cells"], end)
        write_whole(path, json.dumps(notebook, indent=1, ensure_ascii=False).encode())
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as problem:
        print(f"The notebook does not tell how its run ended: {problem!r}", flush=True)


def _end(run_id: str, attempt: int, result: Mapping[str, Any]) -> dict[str, Any]:
    """The same words as in the run's record."""
    sentence, action = REASON_TEXT[Reason(result["reason"])] if result.get("reason") else ("", "")
    hint = result.get("hint") or action
    told = {name: result.get(name) for name in ("state", "reason", "exit_code")}
    return {"id": run_id, "attempt": attempt, **told, "message": result.get("message") or sentence, "hint": hint}


def _tell(cells: list[dict[str, Any]], end: Mapping[str, Any]) -> None:
    codes = [cell for cell in cells if cell["cell_type"] == "code"]
    for cell in codes:
        cell["outputs"] = [out for out in cell["outputs"] if KEY not in out.get("metadata", {})]
    begun = [cell for cell in codes if cell["outputs"] or cell["execution_count"] is not None]
    if not codes:
        return
    words = f"Run {end['id']} {_ENDED.get(end['state'], end['state'])}: {end['message']}\n{end['hint']}"
    line = {"output_type": "display_data", "data": {"text/plain": words}, "metadata": {KEY: end["state"]}}
    (begun or codes[:1])[-1]["outputs"].append(line)
