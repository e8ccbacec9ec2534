"""Rooms of notebooks whose outputs the server writes as JupyterLab does, and whose cells may ask.

jupyter-server-documents 0.3.3 adds an output per message, not one for all that a stream prints in a row. That fills the
file, is an error in each page (https://github.com/jupyter-ai-contrib/jupyter-server-documents/issues/306), and shows
each update of a display anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jupyter_server_documents.outputs import OutputProcessor
from jupyter_server_documents.rooms import YNotebookRoom, YRoomManager
from pycrdt import Array, Map, Text

from atelier.server.questions import AskingClient, Questions

NOTEBOOK = "json:notebook:"
_MOVES = re.compile(r"([\n\r\b])")


class NotebookOutputs(OutputProcessor):
    """Writes what a kernel sends into the outputs of a cell."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._displays: dict[str, tuple[str, int]] = {}
        self._lines: dict[str, tuple[str, int]] = {}

    def _write_output(self, msg_type: str, ycell: Any, file_id: str | None, cell_id: str, content: Any) -> None:
        if cell_id in self._pending_clear_output_cells:
            self._clear_ycell_outputs(ycell, file_id, cell_id)
            self._pending_clear_output_cells.discard(cell_id)
        output = self.transform_output(msg_type, content)
        outputs: Array[Any] = ycell["outputs"]
        if output is None or (msg_type == "stream" and self._go_on(outputs, cell_id, output)):
            return
        display = str((content.get("transient") or {}).get("display_id", ""))
        place = self._place_of(display, cell_id, outputs) if msg_type == "update_display_data" else None
        if place is not None:
            _replace(outputs, place, output)
            return
        if msg_type == "stream":
            output["text"] = self._type(cell_id, ("", 0), output["text"])
        outputs.append(_shared(output))
        self._displays |= {display: (cell_id, len(outputs) - 1)} if display else {}

    def _go_on(self, outputs: Array[Any], cell_id: str, output: Mapping[str, Any]) -> bool:
        """Print at the end of the last output; False when that is not of the same stream."""
        last = outputs[len(outputs) - 1] if len(outputs) else None
        text = last.get("text") if isinstance(last, Map) and last.get("name") == output["name"] else None
        if not isinstance(text, Text) or cell_id not in self._lines:
            return False
        line = self._lines[cell_id][0]
        new = self._type(cell_id, self._lines[cell_id], output["text"])
        kept = len(line) if new.startswith(line) else _first_difference(line, new)
        if kept < len(line):  # in a transaction of its own: a page takes what is removed from the end of what it has
            del text[len(text) - len(line[kept:].encode()) :]  # pycrdt counts bytes
        text += new[kept:]
        return True

    def _type(self, cell_id: str, place: tuple[str, int], text: str) -> str:
        new, cursor = typed(*place, text)
        self._lines[cell_id] = new[new.rfind("\n") + 1 :], cursor
        return new

    def _place_of(self, display: str, cell_id: str, outputs: Array[Any]) -> int | None:
        """Where a display stands in the cell that updates it; None when that is not there any more."""
        cell, place = self._displays.get(display, ("", 0))
        is_there = cell == cell_id and place < len(outputs) and _plain(outputs[place])["output_type"] == "display_data"
        return place if is_there else None


class NotebookRoom(YNotebookRoom):
    """A room with such outputs."""

    async def _connect_client(self, kernel_manager: Any) -> None:
        await super()._connect_client(kernel_manager)
        self.output_processor = NotebookOutputs(parent=self)
        self.output_processor.use_outputs_service = False
        self._kernel_client: Any = AskingClient(self._kernel_client, self._questions)

    @property
    def _questions(self) -> Questions:
        extension = self.parent.parent  # of the manager of the rooms
        questions: Questions = extension.serverapp.web_app.settings["atelier_questions"]
        return questions


class Rooms(YRoomManager):
    """All rooms of a server; to be named as ``ServerDocsApp.yroom_manager_class``."""

    def create_room(self, room_id: str, **options: Any) -> Any:
        """As the parent does it, with our own class for notebooks."""
        if self.has_room(room_id) or not room_id.startswith(NOTEBOOK):
            return super().create_room(room_id, **options)
        room = self._rooms_by_id[room_id] = NotebookRoom(parent=self, room_id=room_id, **options)
        self._freeing_rooms.discard(room_id)
        return room


def typed(line: str, cursor: int, text: str) -> tuple[str, int]:
    """What stands on a terminal after a text was written over its last line.

    Parameters
    ----------
    line : str
        The last line so far.
    cursor : int
        Where in it the text is written: before its end after a carriage return or a backspace.
    text : str
        What is written.

    Returns
    -------
    tuple of str and int
        The line with what follows it now, and where the cursor stands in the last line of that.
    """
    for part in _MOVES.split(text):
        if part == "\n":
            line += part
            cursor = len(line)
        elif part == "\r":
            cursor = line.rfind("\n", 0, cursor) + 1
        elif part == "\b":
            cursor -= cursor > line.rfind("\n") + 1
        else:
            line = line[:cursor] + part + line[cursor + len(part) :]
            cursor += len(part)
    return line, cursor - (line.rfind("\n") + 1)


def _first_difference(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _replace(outputs: Array[Any], place: int, output: Mapping[str, Any]) -> None:
    """Put an output in place of another; those behind it are written anew, for pages add what is new at the end."""
    behind = [_plain(each) for each in outputs][place + 1 :]
    with outputs.doc.transaction():
        del outputs[place:]
        outputs.extend([_shared(each) for each in [output, *behind]])


def _plain(output: Any) -> dict[str, Any]:
    return dict((output.to_py() or {}) if isinstance(output, Map) else output)


def _shared(output: Mapping[str, Any]) -> Map[Any]:
    """An output as the pages expect it: a map, the text of a stream one that can grow."""
    return Map({**output, "text": Text(output["text"])} if output["output_type"] == "stream" else dict(output))
