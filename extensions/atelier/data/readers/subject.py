"""What a reader gets (a file and what is wanted of it) and what it gives back (a plan, its cost, how to do it)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from atelier.data.sources import Reader

HEAD_BYTES = 4096
TEXT_BYTES = 256 * 1024
BLOCK_BYTES = 2**20


@dataclass(frozen=True)
class Subject:
    """A file about to be previewed.

    Parameters
    ----------
    name : str
        Its name, for suffixes that say more than the kind (``.tsv``).
    kind : str
        As `atelier.data.kinds` found it.
    reader : Reader
        Its bytes, counted.
    rows : int
        Most rows that are wanted of a table.
    columns : tuple of str or None
        The wanted columns of a table; None leaves the choice to the reader.
    cut : bool
        The reader holds only the beginning of the real content, e.g. the unpacked head of a gzip file.
    """

    name: str
    kind: str
    reader: Reader
    rows: int = 50
    columns: tuple[str, ...] | None = None
    cut: bool = False


@dataclass
class Shown:
    """What a preview shows; what does not apply to the kind stays None or empty."""

    columns: list[dict[str, Any]] | None = None
    rows: list[list[Any]] | None = None
    total_rows: int | None = None
    text: str | None = None
    image: dict[str, Any] | None = None
    cells: list[dict[str, Any]] | None = None
    truncated: bool = False
    note: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Plan:
    """What reading the preview costs.

    Parameters
    ----------
    bytes_to_read : int
        Bytes of the file that ``read`` will take at most, beside what planning took.
    why : str
        Where the number comes from, in one sentence.
    read : callable
        Reads them. Raises OverBudget when the estimate was wrong.
    facts : dict
        What planning has learned already; shown also when the rest is not read.
    columns : list or None
        Columns and types, where planning has learned them.
    total_rows : int or None
        Rows of the whole table, where planning has learned it.
    note : str
        What the reader should know of the choice, e.g. columns left out.
    """

    bytes_to_read: int
    why: str
    read: Callable[[], Shown]
    facts: dict[str, Any] = field(default_factory=dict)
    columns: list[dict[str, Any]] | None = None
    total_rows: int | None = None
    note: str = ""
