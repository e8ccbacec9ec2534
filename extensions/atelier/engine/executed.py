"""An executed notebook, as the service has it now, put into papermill's with papermill's notes on each cell."""

from __future__ import annotations

import itertools
from datetime import datetime
from typing import Any

import nbformat

PENDING, RUNNING, COMPLETED, FAILED = "pending", "running", "completed", "failed"


def take_cells(notebook: Any, executed: dict[str, Any]) -> int:
    """Replace the cells of papermill's notebook (in place) by the executed ones; how many cells are done.

    Each cell gets papermill's metadata: status, exception, and times where the kernel's are known.
    """
    newer = nbformat.from_dict(executed)  # type: ignore[no-untyped-call]
    last = max((index for index, cell in enumerate(newer.cells) if _is_done(cell)), default=-1)
    for index, cell in enumerate(newer.cells):
        cell.metadata["papermill"] = _note(cell, before_end=index <= last)
    waiting = next((cell for cell in newer.cells[last + 1 :] if cell.cell_type == "code"), None)
    if waiting is not None and not any(has_error(cell) for cell in newer.cells):
        waiting.metadata["papermill"]["status"] = RUNNING
    notebook.cells = newer.cells
    notebook.nbformat, notebook.nbformat_minor = newer.nbformat, newer.nbformat_minor
    for name in ("language_info", "kernelspec", "widgets"):
        if name in newer.metadata:
            notebook.metadata[name] = newer.metadata[name]
    return last + 1


def failed_index(notebook: Any) -> int | None:
    """Where a failed run ended: its first cell with an error, else the one that was running; None without code."""
    cells = list(enumerate(notebook.cells))
    status = {index: cell.metadata.get("papermill", {}).get("status") for index, cell in cells}
    return next(
        itertools.chain(
            (index for index, cell in cells if has_error(cell)),
            (index for index, _ in cells if status[index] == RUNNING),
            (index for index, cell in cells if cell.cell_type == "code"),
        ),
        None,
    )


def show_ending(cell: Any, name: str, value: str, text: str) -> None:
    """Put why a run ended before the outputs of the cell that it ended in, as an error."""
    output = {"output_type": "error", "ename": name, "evalue": value, "traceback": [text]}
    cell.outputs.insert(0, nbformat.from_dict(output))  # type: ignore[no-untyped-call]


def has_error(cell: Any) -> bool:
    """Whether a cell shows an error."""
    return any(output.output_type == "error" for output in cell.get("outputs", []))


def _is_done(cell: Any) -> bool:
    """Whether the kernel has answered; a cell in which it died has a number and no answer."""
    times = cell.metadata.get("execution", {})
    answered = "shell.execute_reply" in times or "execution" not in cell.metadata
    return cell.cell_type == "code" and cell.get("execution_count") is not None and answered


def _note(cell: Any, *, before_end: bool) -> dict[str, Any]:
    times = cell.metadata.get("execution", {})
    begin, end = times.get("iopub.execute_input"), times.get("shell.execute_reply")
    status = FAILED if has_error(cell) else COMPLETED if before_end else PENDING
    return {
        "exception": has_error(cell) if before_end else None,
        "start_time": begin,
        "end_time": end,
        "duration": _seconds(begin, end),
        "status": status,
    }


def _seconds(begin: str | None, end: str | None) -> float | None:
    if not begin or not end:
        return None
    return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()
