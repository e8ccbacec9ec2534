"""Plan first, then preview: what a look at a file costs, and the look itself within a budget of bytes and of time.

A file that can't be shown within its budget is shown by its metadata, with the cost of more, so that a user can decide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from atelier.data.entries import Entry
from atelier.data.kinds import kind_of_file, kind_of_name
from atelier.data.readers import archive, arrays, image, lines, media, notebook, parquet, text
from atelier.data.readers.subject import BLOCK_BYTES, HEAD_BYTES, Plan, Shown, Subject
from atelier.data.roots import Root
from atelier.data.sources import Budget, BytesSource, OverBudget, Reader
from atelier.data.walk import is_a_folder
from atelier.errors import RefusedInput
from atelier.quantities import format_bytes

BUDGET_BYTES = 32_000_000
BUDGET_S = 5.0
MAX_BUDGET_BYTES = 512 * 10**6
MAX_ROWS = 1000

_PLANNERS: dict[str, Callable[[Subject], Plan]] = {
    "csv": lines.plan_csv,
    "jsonl": lines.plan_jsonl,
    "parquet": parquet.plan_parquet,
    "image": image.plan_image,
    "notebook": notebook.plan_notebook,
    "npy": arrays.plan_npy,
    "safetensors": arrays.plan_safetensors,
    "pickle": archive.plan_pickle,
    "zip": archive.plan_zip,
    "audio": media.plan_audio,
    "binary": media.plan_binary,
    "text": text.plan_text,
}


def plan(
    root: Root, path: str, *, rows: int = 50, columns: Sequence[str] | None = None,
    budget_bytes: int = BUDGET_BYTES, budget_s: float = BUDGET_S,
) -> dict[str, Any]:  # fmt: skip
    """What `preview` with the same arguments would read, without reading it; the same JSON, with metadata only."""
    return _Look(root, path, rows, columns, Budget(_allowed(budget_bytes), budget_s)).answer(read=False)


def preview(
    root: Root, path: str, *, rows: int = 50, columns: Sequence[str] | None = None,
    budget_bytes: int = BUDGET_BYTES, budget_s: float = BUDGET_S,
) -> dict[str, Any]:  # fmt: skip
    """A look at a file.

    Parameters
    ----------
    root : Root
        Where.
    path : str
        Relative POSIX path of the file.
    rows : int
        Most rows of a table, 1 to 1000.
    columns : sequence of str or None
        Columns of a parquet file; None takes the first 20 that fit into the budget.
    budget_bytes : int
        Most bytes of the file that may be read, up to 512 MB. A preview that needs more shows metadata, and its plan
        says how much.
    budget_s : float
        Seconds after which no more is read.

    Returns
    -------
    dict
        ``root path name kind size_bytes modified_at`` of the file; ``plan``: ``bytes_to_read file_bytes budget_bytes
        within_budget why``; ``bytes_read seconds truncated note facts``; and, as the kind has it, ``columns`` (``name
        type``), ``rows``, ``total_rows``, ``text``, ``image`` (``png_base64 width height``), ``cells`` (``kind source
        tags output``). What a kind does not have is None. HTML and SVG are text. Nothing is ever unpickled.

    Raises
    ------
    RefusedInput
        ``bad_path``, ``is_a_folder``, ``special_file``, ``bad_rows``, ``bad_budget``, ``unknown_column``.
    NotFound
        ``not_found``.
    NotAllowed
        ``outside_root``, ``permission_denied``.
    """
    return _Look(root, path, rows, columns, Budget(_allowed(budget_bytes), budget_s)).answer(read=True)


def _allowed(budget_bytes: int) -> int:
    if not 0 < budget_bytes <= MAX_BUDGET_BYTES:
        raise RefusedInput(
            "bad_budget", f"A budget of {budget_bytes} bytes can't be given.", hint=f"Ask for 1 to {MAX_BUDGET_BYTES}."
        )
    return budget_bytes


@dataclass(frozen=True)
class _Look:
    """One look at one file."""

    root: Root
    path: str
    rows: int
    columns: Sequence[str] | None
    budget: Budget

    def answer(self, *, read: bool) -> dict[str, Any]:
        if not 1 <= self.rows <= MAX_ROWS:
            raise RefusedInput("bad_rows", f"{self.rows} rows can't be shown.", hint=f"Ask for 1 to {MAX_ROWS}.")
        entry = self.root.describe(self.path)
        if entry.kind == "folder":
            raise is_a_folder(f"{self.root.name}/{self.path}".rstrip("/"))
        with closing(Reader(self.root.open(self.path), self.budget)) as reader:
            subject = Subject(entry.name, kind_of_name(entry.name), reader)
            try:
                subject, note = self._subject(entry.name, reader)
            except OverBudget as problem:
                return self._json(entry, subject, Plan(0, "nothing was read", Shown), Shown(note=problem.message))
            planned, shown = self._carried_out(subject, read=read)
        shown.note = " ".join(filter(None, (note, shown.note)))
        return self._json(entry, subject, planned, shown)

    def _subject(self, name: str, reader: Reader) -> tuple[Subject, str]:
        """The file with its kind; of a gzip file what its first MiB unpacks to."""
        columns = tuple(self.columns) if self.columns is not None else None
        reader.prefetch([(0, min(HEAD_BYTES, self.budget.left_bytes))])
        kind, note = kind_of_file(name, reader.at(0, min(HEAD_BYTES, self.budget.left_bytes)))
        if kind != "gzip":
            return Subject(name, kind, reader, self.rows, columns), note
        try:
            content, more = archive.unpacked_head(reader.at(0, min(BLOCK_BYTES, self.budget.left_bytes)))
        except RefusedInput as problem:
            return Subject(name, "binary", reader), problem.message
        inner = name.removesuffix(".gz")
        inner_kind, _ = kind_of_file(inner, content[:HEAD_BYTES])
        kind = inner_kind if inner_kind in {"csv", "jsonl", "text"} or not more else "binary"
        return Subject(
            inner,
            kind,
            Reader(BytesSource(content), Budget(2 * BLOCK_BYTES, self.budget.limit_s)),
            self.rows,
            columns,
            more,
        ), note

    def _carried_out(self, subject: Subject, *, read: bool) -> tuple[Plan, Shown]:
        """The plan, and what it shows; metadata and the reason where the file is broken or the budget too small."""
        planned = Plan(0, "nothing was read", Shown)
        try:
            planned = _PLANNERS[subject.kind](subject)
            planned.bytes_to_read = self._total(planned, subject)
            if planned.bytes_to_read > self.budget.limit_bytes:
                needed = format_bytes(planned.bytes_to_read)
                return planned, _metadata(planned, f"Showing it takes reading {needed}: {planned.why}.")
            shown = planned.read() if read else _metadata(planned, planned.note)
        except OverBudget as problem:
            planned.bytes_to_read = max(planned.bytes_to_read, self.budget.limit_bytes + 1)
            return planned, _metadata(planned, problem.message)
        except RefusedInput as problem:
            if problem.code not in _SHOWN_AS_NOTE:
                raise
            return planned, _metadata(planned, problem.message)
        shown.facts = planned.facts | shown.facts
        return planned, shown

    def _total(self, planned: Plan, subject: Subject) -> int:
        """Bytes that the whole look takes: what planning has read, and what is still to be read of this very file."""
        to_come = planned.bytes_to_read if subject.reader.budget is self.budget else 0
        return min(self.budget.spent_bytes + to_come, max(subject.reader.size_bytes, self.budget.spent_bytes))

    def _json(self, entry: Entry, subject: Subject, planned: Plan, shown: Shown) -> dict[str, Any]:
        about = entry.as_json()
        cost = planned.bytes_to_read
        return {
            "root": self.root.name,
            "path": "/".join(name for name in self.path.split("/") if name not in ("", ".")),
            "name": entry.name,
            "kind": subject.kind,
            "size_bytes": about["size_bytes"],
            "modified_at": about["modified_at"],
            "plan": {
                "bytes_to_read": cost,
                "file_bytes": about["size_bytes"],
                "budget_bytes": self.budget.limit_bytes,
                "within_budget": cost <= self.budget.limit_bytes,
                "why": planned.why,
            },
            "bytes_read": self.budget.spent_bytes,
            "seconds": round(self.budget.elapsed_s, 4),
            **vars(shown),
        }


_SHOWN_AS_NOTE = frozenset({"broken_file", "encrypted", "image_too_large", "page_too_large"})


def _metadata(planned: Plan, note: str) -> Shown:
    """What planning alone has learned."""
    return Shown(facts=planned.facts, columns=planned.columns, total_rows=planned.total_rows, note=note, truncated=True)
