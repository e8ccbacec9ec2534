"""What a kernel sends becomes outputs as JupyterLab writes them: one per stream, displays updated in place."""

from __future__ import annotations

from typing import Any

import pytest
from pycrdt import Array, Doc, Map

from atelier.server.rooms import NotebookOutputs, typed


@pytest.mark.parametrize(
    ("line", "cursor", "text", "expected"),
    [
        ("", 0, "a\nb", ("a\nb", 1)),
        ("10 %", 4, "\r20 %", ("20 %", 4)),
        ("100 %", 5, "\rdone", ("done%", 4)),
        ("", 0, "a\r", ("a", 0)),
        ("a", 0, "b\n", ("b\n", 0)),
        ("ab", 2, "\bc", ("ac", 2)),
        ("x", 1, "\b\b\b1", ("1", 1)),
        ("é→", 2, "\r✓", ("✓→", 1)),
        ("one", 3, "\ntwo\rTWO", ("one\nTWO", 3)),
    ],
)
def test_a_line_is_written_as_on_a_terminal(line: str, cursor: int, text: str, expected: tuple[str, int]) -> None:
    assert typed(line, cursor, text) == expected


class Cell:
    """A cell in a shared document, and what writes its outputs."""

    def __init__(self) -> None:
        self.doc: Doc[Any] = Doc()
        self.doc["cell"] = self.map = Map({"outputs": Array()})
        self.outputs = NotebookOutputs()
        self.outputs.use_outputs_service = False

    def take(self, kind: str, **content: Any) -> None:
        self.outputs.process_output(kind, self.map, "file", "cell", content)

    def print(self, *texts: str, name: str = "stdout") -> None:
        for text in texts:
            self.take("stream", name=name, text=text)

    def display(self, text: str, display_id: str, *, kind: str = "display_data") -> None:
        data = {"data": {"text/plain": text}, "metadata": {}}
        self.take(kind, **data, transient={"display_id": display_id})

    @property
    def shown(self) -> list[str]:
        found = self.map["outputs"].to_py()
        return [each["text"] if each["output_type"] == "stream" else each["data"]["text/plain"] for each in found]


def test_what_a_stream_prints_in_a_row_is_one_output() -> None:
    cell = Cell()
    cell.print("épo", "ch 1\n", "epoch 2\n")
    cell.print("careful\n", name="stderr")
    cell.print("epoch 3\n")

    assert cell.shown == ["époch 1\nepoch 2\n", "careful\n", "epoch 3\n"]


def test_a_progress_bar_stays_one_line() -> None:
    cell = Cell()
    cell.print("begin\n", *(f"\r{'█' * count}→ {count}" for count in range(100)), "\n", "end\n")

    assert cell.shown == [f"begin\n{'█' * 99}→ 99\nend\n"]


def test_a_display_is_updated_where_it_stands() -> None:
    cell = Cell()
    cell.display("first", "d1")
    cell.display("second", "d2")
    cell.print("a")
    cell.display("FIRST", "d1", kind="update_display_data")
    cell.print("b")

    assert cell.shown == ["FIRST", "second", "ab"]


def test_an_update_of_a_display_that_is_gone_is_shown_anew() -> None:
    cell = Cell()
    cell.display("old", "d1")
    del cell.map["outputs"][:]
    cell.print("text")
    cell.display("new", "d1", kind="update_display_data")

    assert cell.shown == ["text", "new"]


def test_clearing_waits_for_the_next_output() -> None:
    cell = Cell()
    cell.print("old\n")
    cell.take("clear_output", wait=True)
    assert cell.shown == ["old\n"]

    cell.print("new\n")
    assert cell.shown == ["new\n"]
