"""What the papermill engine makes of options, and of a notebook that is still running; `tests/integration` runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from papermill.engines import papermill_engines

from atelier.engine import AtelierEngine
from atelier.engine.executed import failed_index, has_error, show_ending, take_cells
from atelier.engine.managed import _input_file, _order
from atelier.errors import RefusedInput


def code(source: str, count: int | None = None, **more: Any) -> dict[str, Any]:
    cell = {"cell_type": "code", "source": source, "execution_count": count, "outputs": [], "metadata": {}}
    return {**cell, **more}


def notebook(*cells: dict[str, Any]) -> dict[str, Any]:
    return {"cells": list(cells), "metadata": {"language_info": {"name": "python"}}, "nbformat": 4, "nbformat_minor": 4}


ERROR = {"output_type": "error", "ename": "ValueError", "evalue": "x", "traceback": ["T"]}
TEXT = {"cell_type": "markdown", "source": "# x", "metadata": {}}


class TestOptions:
    def test_environment_wins_over_the_notebook_and_a_server_s_own_does_not(self) -> None:
        metadata = {"image": "pytorch", "machine": "gpu", "retries": 1, "data": ["a@1"]}
        assert _order(metadata, {}).image == "pytorch"
        order = _order(metadata, {"ATELIER_IMAGE": "tensorflow", "ATELIER_RETRIES": "3", "ATELIER_TIMEOUT": "2h"})
        assert (order.image, order.machine, order.retries, order.timeout) == ("tensorflow", "gpu", 3, "2h")
        of_server = {
            "ATELIER_IMAGE": "x",
            "ATELIER_SERVER_IMAGE": "x",
            "ATELIER_MACHINE": "y",
            "ATELIER_SERVER_MACHINE": "z",
        }
        order = _order(metadata, of_server)
        assert (order.image, order.machine) == ("pytorch", "y")
        assert _order({}, of_server).image == "x"

    @pytest.mark.parametrize(
        ("metadata", "environ", "words"),
        [
            ({"imgae": "x"}, {}, "'image'"),
            ([], {}, "mapping"),
            ({"retries": "3"}, {}, "whole number"),
            ({"retries": True}, {}, "whole number"),
            ({}, {"ATELIER_RETRIES": "three"}, "ATELIER_RETRIES"),
        ],
    )
    def test_refuses_what_is_none(self, metadata: object, environ: dict[str, str], words: str) -> None:
        with pytest.raises(RefusedInput) as caught:
            _order(metadata, environ)
        assert caught.value.code == "bad_metadata"
        assert words in caught.value.message


class TestInput:
    def test_file_is_taken_as_it_is(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "a.ipynb").write_text(json.dumps(notebook()))
        with _input_file(nbformat.from_dict(notebook()), "a.ipynb") as path:
            assert path == tmp_path / "a.ipynb"

    @pytest.mark.parametrize("given", ["-", "s3://bucket/a.ipynb", None, "missing.ipynb"])
    def test_what_is_no_file_is_copied_without_the_injected_cell(self, given: str | None) -> None:
        injected = code("a = 2", metadata={"tags": ["injected-parameters"]})
        content = nbformat.from_dict(notebook(code("a = 1"), injected))
        with _input_file(content, given) as path:
            assert [cell["source"] for cell in json.loads(path.read_text())["cells"]] == [["a = 1"]]
        assert not path.exists()
        assert len(content.cells) == 2


class TestCells:
    def test_notes_of_a_running_notebook(self) -> None:
        times = {"iopub.execute_input": "2026-01-01T00:00:01.5Z", "shell.execute_reply": "2026-01-01T00:00:03.0Z"}
        mine = nbformat.from_dict(notebook(code("old")))
        executed = notebook(TEXT, code("a", 1, metadata={"execution": times}), TEXT, code("b"), code("c"))
        assert take_cells(mine, executed) == 2
        notes = [cell.metadata.papermill for cell in mine.cells]
        assert [note["status"] for note in notes] == ["completed", "completed", "pending", "running", "pending"]
        assert notes[1]["duration"] == 1.5
        assert failed_index(mine) == 3

    def test_failed_cell(self) -> None:
        mine = nbformat.from_dict(notebook())
        take_cells(mine, notebook(code("a", 1), code("b", 2, outputs=[ERROR]), code("c")))
        assert [cell.metadata.papermill["status"] for cell in mine.cells] == ["completed", "failed", "pending"]
        assert failed_index(mine) == 1

    def test_cell_in_which_the_kernel_died(self) -> None:
        mine = nbformat.from_dict(notebook())
        begun = {"execution": {"iopub.execute_input": "2026-01-01T00:00:01.5Z"}}
        take_cells(mine, notebook(code("a", 1), code("b", 2, metadata=begun)))
        assert [cell.metadata.papermill["status"] for cell in mine.cells] == ["completed", "running"]
        assert failed_index(mine) == 1

    def test_nothing_ran(self) -> None:
        assert failed_index(nbformat.from_dict(notebook(TEXT, code("a")))) == 1
        assert failed_index(nbformat.from_dict(notebook(TEXT))) is None

    def test_ending_is_shown_first(self) -> None:
        cell = nbformat.from_dict(code("a", 1, outputs=[ERROR]))
        show_ending(cell, "deadline", "Too long.", "Run r-1: Too long.")
        assert [output.ename for output in cell.outputs] == ["deadline", "ValueError"]
        assert has_error(cell)


def test_kernel_and_language_of_a_notebook_do_not_matter() -> None:
    papermill_engines.register("atelier", AtelierEngine)
    plain = nbformat.from_dict(notebook())
    assert papermill_engines.nb_kernel_name("atelier", plain) == "python3"
    assert papermill_engines.nb_language("atelier", plain) == "python"
