"""Rows as aligned text and as HTML, moments as people say them; what terminal and notebook show alike."""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from atelier.quantities import format_duration

Row = TypeVar("Row")
MAX_CELL = 48


class Rows(list[Row], Generic[Row]):
    """A list that shows itself as a table.

    Parameters
    ----------
    rows : iterable
        The entries.
    columns : mapping
        Heading → function of an entry that gives the cell's text.
    empty : str
        What is shown when there is no entry.
    """

    def __init__(
        self,
        rows: Iterable[Row],
        columns: Mapping[str, Callable[[Row], str]],
        *,
        empty: str,
    ) -> None:
        super().__init__(rows)
        self._columns = dict(columns)
        self._empty = empty

    def _cells(self) -> list[list[str]]:
        return [[cell(row) for cell in self._columns.values()] for row in self]

    def __repr__(self) -> str:
        return text_table(list(self._columns), self._cells()) if self else self._empty

    def _repr_html_(self) -> str:
        return html_table(list(self._columns), self._cells()) if self else f"<p>{html.escape(self._empty)}</p>"


def text_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, last_limit: int = MAX_CELL) -> str:
    """Aligned columns; a cell is cut at 48 columns, or in the last one at others, control characters are ``?``."""
    limits = [MAX_CELL] * (len(headings) - 1) + [last_limit]
    cells = [list(headings), *([clean(cell, most) for cell, most in zip(row, limits, strict=True)] for row in rows)]
    widths = [max(width(row[column]) for row in cells) for column in range(len(headings))]
    return "\n".join(
        "  ".join(_padded(cell, wide) for cell, wide in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def html_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A plain table, everything escaped."""
    head = "".join(f'<th style="text-align:left">{html.escape(text)}</th>' for text in headings)
    body = "".join(
        "<tr>" + "".join(f'<td style="text-align:left">{html.escape(cell)}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def clean(text: str, limit: int = MAX_CELL) -> str:
    """One line that can't steer a terminal: control and direction characters as ``?``, cut to so many columns."""
    line = "".join(
        "?" if unicodedata.category(char) in {"Cc", "Cf", "Zl", "Zp"} and char != "\u200d" else char for char in text
    )
    if width(line) <= limit:
        return line
    while width(line) > limit - 1:
        line = line[:-1]
    return line + "…"


def width(text: str) -> int:
    """Columns that a terminal gives to a text."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def _padded(text: str, wide: int) -> str:
    return text + " " * (wide - width(text))


def ago(moment: datetime | str | None, now: datetime | None = None) -> str:
    """A past moment as people say it: ``"3 min ago"``; ``"-"`` for None."""
    if moment is None:
        return "-"
    then = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    passed_s = ((now or datetime.now(UTC)) - then).total_seconds()
    if passed_s < 2:
        return "just now"
    largest = f"{passed_s:.0f} s" if passed_s < 60 else " ".join(format_duration(passed_s).split()[:2])
    return f"{largest} ago"


def lasted(record: Mapping[str, Any], now: datetime | None = None) -> str:
    """How long work has taken until now or its end, lost work until it was last heard of; ``"-"`` before its start."""
    if not record.get("started_at"):
        return "-"
    start = datetime.fromisoformat(record["started_at"])
    ended = record.get("ended_at") and (_heard(record) or record["ended_at"])
    end = datetime.fromisoformat(ended) if ended else (now or datetime.now(UTC))
    return format_duration(max(0.0, (end - start).total_seconds()))


def _heard(record: Mapping[str, Any]) -> str | None:
    """When a lost run or attempt was last heard of: the end that is known."""
    if record.get("state") != "lost":
        return None
    told = record["attempts"][-1] if record.get("attempts") else record
    heard: str | None = told.get("last_seen_at")
    return heard


def progress_text(progress: Mapping[str, Any] | None) -> str:
    """Progress in words: ``"3 of 5 (60 %), 12 s left"``; the time left is unknown before two points."""
    if not progress:
        return ""
    done, total, left_s = progress["done"], progress.get("total"), progress.get("left_s")
    unit = f" {progress['unit']}" if progress.get("unit") else ""
    if not total:
        return f"{done:g}{unit} done"
    left = f", {format_duration(left_s)} left" if left_s is not None else ", time left unknown" if done < total else ""
    return f"{done:g} of {total:g}{unit} ({percent(done, total)} %){left}"


def percent(done: float, total: float) -> int:
    """How much is done in whole percent, as the views write it: 100 only when all is done."""
    return math.floor(min(100.0, 100 * done / total))


def stopped_text(run: Mapping[str, Any]) -> str:
    """Where an ended run stopped: ``"stopped at 3 of 5"``; empty when it got to the end, or never said how far."""
    progress = run.get("progress")
    if not progress or not run.get("ended_at"):
        return ""
    done, total = progress["done"], progress.get("total")
    unit = f" {progress['unit']}" if progress.get("unit") else ""
    if not total:
        return "" if run["state"] == "succeeded" else f"stopped at {done:g}{unit}"
    return f"stopped at {done:g} of {total:g}{unit}" if done < total else ""


def run_progress_text(run: Mapping[str, Any]) -> str:
    """How far a run is, or where it stopped."""
    return stopped_text(run) if run.get("ended_at") else progress_text(run.get("progress"))
