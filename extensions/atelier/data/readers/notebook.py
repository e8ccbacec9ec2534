"""Notebooks: what the cells say, and of their outputs the text alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from atelier.data.readers.subject import TEXT_BYTES, Plan, Shown, Subject
from atelier.data.readers.text import decode

MAX_CELLS = 100
MAX_NOTEBOOK_BYTES = 100 * 10**6
"""A larger one is shown as text: as Python objects it would take a gigabyte of memory."""

_SOURCE_LETTERS = 4000
_OUTPUT_LETTERS = 2000


def plan_notebook(subject: Subject) -> Plan:
    """The whole file: JSON has no smaller part."""
    size_bytes = subject.reader.size_bytes
    if size_bytes > MAX_NOTEBOOK_BYTES:
        return Plan(TEXT_BYTES, "the beginning of the text", lambda: _too_large(subject))
    return Plan(size_bytes, "a notebook is read whole", lambda: _read(subject))


def _read(subject: Subject) -> Shown:
    content = subject.reader.at(0, subject.reader.size_bytes)
    try:
        notebook = json.loads(content)
    except (ValueError, RecursionError) as problem:
        what = "is nested too deeply" if isinstance(problem, RecursionError) else "is not JSON"
        return _as_text(content, f"The notebook {what}, so it is shown as text.")
    cells = notebook.get("cells") if isinstance(notebook, Mapping) else None
    if not isinstance(cells, list):
        return _as_text(content, "The file has no cells, so it is shown as text.")
    shown = [_cell(cell) for cell in cells[:MAX_CELLS] if isinstance(cell, Mapping)]
    return Shown(cells=shown, truncated=len(cells) > MAX_CELLS, facts={"cells": len(cells), **_language(notebook)})


def _too_large(subject: Subject) -> Shown:
    shown = _as_text(subject.reader.at(0, TEXT_BYTES), "The notebook is too large, so its beginning is shown as text.")
    shown.truncated = True
    return shown


def _as_text(content: bytes, note: str) -> Shown:
    text, encoding = decode(content[:TEXT_BYTES])
    return Shown(text=text, facts={"encoding": encoding}, truncated=len(content) > TEXT_BYTES, note=note)


def _language(notebook: Mapping[str, Any]) -> dict[str, str]:
    kernel = _mapping(_mapping(notebook.get("metadata")).get("kernelspec"))
    return {"kernel": str(kernel.get("display_name") or kernel.get("name"))[:100]} if kernel else {}


def _cell(cell: Mapping[str, Any]) -> dict[str, Any]:
    tags = _mapping(cell.get("metadata")).get("tags")
    outputs = cell.get("outputs")
    texts = (
        [_output(output) for output in outputs[:20] if isinstance(output, Mapping)] if isinstance(outputs, list) else []
    )
    return {
        "kind": str(cell.get("cell_type", "raw"))[:20],
        "source": _joined(cell.get("source"))[:_SOURCE_LETTERS],
        "tags": [str(tag)[:50] for tag in tags[:10]] if isinstance(tags, list) else [],
        "output": "".join(texts)[:_OUTPUT_LETTERS],
    }


def _output(output: Mapping[str, Any]) -> str:
    """The text of an output; a picture or a widget is only named."""
    kind = output.get("output_type")
    if kind == "stream":
        return _joined(output.get("text"))
    if kind == "error":
        return f"{output.get('ename', 'Error')}: {output.get('evalue', '')}\n"
    data = _mapping(output.get("data"))
    if picture := next((key for key in data if str(key).startswith("image/")), None):
        return f"[{picture}]\n"
    return _joined(data.get("text/plain")) + "\n" if "text/plain" in data else ""


def _joined(text: Any) -> str:
    parts = text if isinstance(text, list) else [text]
    return "".join(part for part in parts if isinstance(part, str))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
