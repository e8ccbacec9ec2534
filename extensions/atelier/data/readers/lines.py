"""Tables in text (CSV, TSV, JSON Lines): a head block without its last partial line, separator and types by a look."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from atelier.data.readers.cells import as_cell, cut
from atelier.data.readers.subject import BLOCK_BYTES, Plan, Shown, Subject
from atelier.data.readers.text import decode, plan_text

MAX_COLUMNS = 100
_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_INT = re.compile(r"[+-]?\d{1,18}")
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?")
_BOOL = {"true", "false"}


def plan_csv(subject: Subject) -> Plan:
    """The first MiB; rows are never counted."""
    length, why = _block(subject)
    return Plan(length, why, lambda: _read_csv(subject, length))


def plan_jsonl(subject: Subject) -> Plan:
    """The first MiB; columns are the keys of the rows that are shown."""
    length, why = _block(subject)
    return Plan(length, why, lambda: _read_jsonl(subject, length))


def _block(subject: Subject) -> tuple[int, str]:
    length = min(subject.reader.size_bytes, BLOCK_BYTES)
    whole = length == subject.reader.size_bytes
    return length, "the whole file" if whole else "the first MiB"


def _whole_lines(subject: Subject, length: int) -> tuple[str, str, bool]:
    """Text of the block without its last partial line, its encoding, and whether the file has more."""
    text, encoding = decode(subject.reader.at(0, length))
    more = subject.cut or length < subject.reader.size_bytes
    return text[: text.rfind("\n") + 1] if more else text, encoding, more


def _read_csv(subject: Subject, length: int) -> Shown:
    text, encoding, more = _whole_lines(subject, length)
    if not text.strip():
        return _as_text(
            subject,
            "No line of it ends within the first block, so it is shown as text." if more else "The file is empty.",
        )
    separator = "\t" if subject.name.lower().endswith((".tsv", ".tsv.gz")) else _separator(text)
    try:
        table = [
            row
            for row in islice(csv.reader(text.splitlines(keepends=True), delimiter=separator), subject.rows + 2)
            if row
        ]
    except csv.Error as problem:
        return _as_text(subject, f"It can't be read as a table ({problem}), so it is shown as text.")
    header = table[0] if _has_header(table) else []
    body = table[1:] if header else table
    width = max(map(len, table))
    names = [*header, *(f"column {n + 1}" for n in range(len(header), width))]
    shown = _table(names, [row + [""] * (width - len(row)) for row in body[: subject.rows]])
    shown.truncated = more or len(body) > subject.rows
    shown.facts = {"encoding": encoding, "separator": _SEPARATORS[separator], "header": bool(header)}
    shown.total_rows = None if shown.truncated else len(body)
    shown.note = " ".join(filter(None, (shown.note, "The text contains NUL characters." if "\0" in text else "")))
    return shown


def _separator(text: str) -> str:
    """The separator that cuts the first lines into most parts of equal number; a comma when none does."""
    lines = [re.sub(r'"[^"]*"', "", line) for line in text.splitlines()[:20] if line.strip()]
    best, best_score = ",", 0
    for separator in _SEPARATORS:
        counts = [line.count(separator) for line in lines]
        usual = max(set(counts), key=counts.count, default=0)
        score = usual * counts.count(usual)
        if usual and score > best_score:
            best, best_score = separator, score
    return best


def _has_header(table: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names columns: its cells are filled, distinct, and none is a number or a date."""
    first = [cell.strip() for cell in table[0]]
    return (
        all(first)
        and len(set(first)) == len(first)
        and not any(_FLOAT.fullmatch(cell) or _DATE.fullmatch(cell) for cell in first)
    )


def _table(names: Sequence[str], body: Sequence[Sequence[str]]) -> Shown:
    columns, values = [], []
    for n, name in enumerate(names[:MAX_COLUMNS]):
        cells = [row[n].strip() for row in body]
        kind = _type([cell for cell in cells if cell])
        columns.append({"name": cut(name), "type": kind})
        values.append([_value(cell, kind) for cell in cells])
    note = f"{len(names)} columns; the first {MAX_COLUMNS} are shown." if len(names) > MAX_COLUMNS else ""
    return Shown(columns=columns, rows=[list(row) for row in zip(*values, strict=True)], note=note)


def _type(cells: Iterable[str]) -> str:
    found = set(cells)
    if not found:
        return "empty"
    for kind, fits in (("int", _INT.fullmatch), ("float", _number), ("date", _DATE.fullmatch)):
        if all(fits(cell) for cell in found):
            return kind
    return "bool" if {cell.lower() for cell in found} <= _BOOL else "text"


def _number(cell: str) -> bool:
    return bool(_FLOAT.fullmatch(cell)) or cell.lower().lstrip("+-") in {"nan", "inf", "infinity"}


def _value(cell: str, kind: str) -> Any:
    if not cell:
        return None
    if kind == "bool":
        return cell.lower() == "true"
    return as_cell({"int": int, "float": float}.get(kind, str)(cell))


def _read_jsonl(subject: Subject, length: int) -> Shown:
    text, encoding, more = _whole_lines(subject, length)
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        return _as_text(
            subject,
            "No line of it ends within the first block, so it is shown as text." if more else "The file is empty.",
        )
    rows: list[Any] = []
    for number, line in enumerate(lines[: subject.rows], 1):
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError) as problem:
            what = "is nested too deeply" if isinstance(problem, RecursionError) else "is not JSON"
            return _as_text(subject, f"Line {number} {what}, so the file is shown as text.")
    shown = _records([row if isinstance(row, dict) else {"value": row} for row in rows])
    shown.truncated = more or len(lines) > subject.rows
    shown.facts, shown.total_rows = {"encoding": encoding}, None if shown.truncated else len(lines)
    return shown


def _records(rows: Sequence[dict[str, Any]]) -> Shown:
    keys = list(dict.fromkeys(key for row in rows for key in row))
    names = keys[:MAX_COLUMNS]
    columns = [
        {"name": cut(name), "type": _json_type([row[name] for row in rows if row.get(name) is not None])}
        for name in names
    ]
    note = f"{len(keys)} keys; the first {MAX_COLUMNS} are shown." if len(keys) > MAX_COLUMNS else ""
    return Shown(columns=columns, rows=[[as_cell(row.get(name)) for name in names] for row in rows], note=note)


def _json_type(values: Sequence[Any]) -> str:
    names = {bool: "bool", int: "int", float: "float", str: "text", list: "list", dict: "map"}
    found = {names[type(value)] for value in values}
    if found <= {"int", "float"} and "float" in found:
        return "float"
    return found.pop() if len(found) == 1 else "mixed" if found else "empty"


def _as_text(subject: Subject, note: str) -> Shown:
    shown = plan_text(subject).read()
    shown.note = note
    return shown
