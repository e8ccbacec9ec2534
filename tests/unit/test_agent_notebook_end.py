"""The executed notebook says how its run ended, in the words of the run's record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from atelier.agent.notebook_end import KEY, stamp
from atelier.agent.outcome import Result, stopped
from atelier.reasons import REASON_TEXT, Reason

RUN = "r-aaaaaaaaaa"


def written(path: Path, *cells: Any) -> Path:
    path.write_text(nbformat.writes(new_notebook(cells=list(cells))))  # type: ignore[no-untyped-call]
    return path


def read(path: Path) -> Any:
    notebook = nbformat.reads(path.read_text(), as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    return notebook


def test_the_cell_that_was_run_last_tells_the_end(tmp_path: Path) -> None:
    done = new_code_cell("a", execution_count=1, outputs=[new_output("stream", text="7\n")])
    running = new_code_cell("b", execution_count=2)
    path = written(tmp_path / "n.ipynb", new_markdown_cell("# 字"), done, running, new_code_cell("c"))
    stamp(
        path, RUN, 2, stopped("memory", -9, words="The run used 5 GiB of memory, and its machine has 4 GiB.").as_json()
    )
    notebook = read(path)
    outputs = [cell.get("outputs") for cell in notebook.cells]
    assert [len(each or []) for each in outputs] == [0, 1, 1, 0]
    hint = REASON_TEXT[Reason.OUT_OF_MEMORY][1]
    words = f"Run {RUN} failed: The run used 5 GiB of memory, and its machine has 4 GiB.\n{hint}"
    assert outputs[2][0]["data"] == {"text/plain": words}
    assert notebook.metadata[KEY] == {
        "id": RUN,
        "attempt": 2,
        "state": "failed",
        "reason": "out_of_memory",
        "exit_code": -9,
        "message": "The run used 5 GiB of memory, and its machine has 4 GiB.",
        "hint": hint,
    }
    before = path.read_text()
    stamp(
        path, RUN, 2, stopped("memory", -9, words="The run used 5 GiB of memory, and its machine has 4 GiB.").as_json()
    )
    assert path.read_text() == before


@pytest.mark.parametrize("order", ["cancel", "deadline", "stalled", "preempt", "memory", "disk_quota"])
def test_a_reason_without_words_has_its_sentence(tmp_path: Path, order: str) -> None:
    path = written(tmp_path / "n.ipynb", new_code_cell("a"), new_code_cell("b"))
    end = stopped(order)
    stamp(path, RUN, 1, end.as_json())
    words = read(path).cells[0].outputs[0]["data"]["text/plain"]
    assert words.endswith(": " + "\n".join(REASON_TEXT[Reason(end.reason or "")]))


def test_what_is_no_notebook_hinders_nobody(tmp_path: Path) -> None:
    end = Result("lost", "agent_lost").as_json()
    stamp(tmp_path / "none.ipynb", RUN, 1, end)
    assert list(tmp_path.iterdir()) == []
    for text in ("", "[]", "{}", '{"metadata": {}, "cells": [3]}', '{"metadata": [], "cells": []}'):
        (tmp_path / "n.ipynb").write_text(text)
        stamp(tmp_path / "n.ipynb", RUN, 1, end)
        assert (tmp_path / "n.ipynb").read_text() == text
    (tmp_path / "n.ipynb").unlink()
    (tmp_path / "n.ipynb").symlink_to("/etc/hostname")
    stamp(tmp_path / "n.ipynb", RUN, 1, end)


def test_a_run_that_succeeded_leaves_its_notebook_as_it_is(tmp_path: Path) -> None:
    path = written(tmp_path / "n.ipynb", new_markdown_cell("only words"))
    before = path.read_text()
    stamp(path, RUN, 1, Result("succeeded", exit_code=0).as_json())
    assert path.read_text() == before
    stamp(path, RUN, 1, Result("failed", "kernel_missing").as_json())
    assert json.loads(path.read_text())["metadata"][KEY]["reason"] == "kernel_missing"
