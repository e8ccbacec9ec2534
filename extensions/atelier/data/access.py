"""``atelier.data.list`` and ``atelier.data.preview``: home in this process, other roots through the service."""

from __future__ import annotations

import builtins
import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from atelier.data.paths import split_root
from atelier.errors import RefusedInput
from atelier.libraries import library
from atelier.quantities import format_bytes

_TABLE = "border-collapse:collapse;font-size:var(--jp-ui-font-size1,13px);margin:.4em 0"
_CELL = (
    "text-align:left;padding:.2em .8em .2em 0;max-width:24em;overflow-wrap:anywhere;"
    "border-bottom:1px solid var(--jp-border-color2,#ccc)"
)


@dataclass(frozen=True)
class Folder:
    """One page of a folder. ``items`` and ``next`` are those of the listing; iterating gives the names."""

    content: dict[str, Any]

    @property
    def items(self) -> builtins.list[dict[str, Any]]:
        return [*self.content["items"]]

    @property
    def next(self) -> str | None:
        """Token of the next page for ``list(…, page=…)``; None at the end."""
        token = self.content["next"]
        return None if token is None else str(token)

    def __iter__(self) -> Iterator[str]:
        return (str(item["name"]) for item in self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        lines = [f"{_sign(item)}{item['name']}{_size(item)}" for item in self.items]
        return "\n".join([f"{_place(self.content)}: {_count(self.content)}", *lines])

    def _repr_html_(self) -> str:
        rows = [
            [_sign(item) + item["name"], item["type"], _size(item), (item["modified_at"] or "")[:16].replace("T", " ")]
            for item in self.items
        ]
        head = f"{html.escape(_place(self.content))}: {_count(self.content)}"
        return f"<div>{head}</div>{_html_table(['name', 'type', 'size', 'changed'], rows)}"


@dataclass(frozen=True)
class Preview:
    """A look at a file; ``content`` is the whole answer (see `atelier.data.previews.preview`)."""

    content: dict[str, Any]

    @property
    def kind(self) -> str:
        return str(self.content["kind"])

    @property
    def plan(self) -> dict[str, Any]:
        """What the look costs: ``bytes_to_read file_bytes budget_bytes within_budget why``."""
        return dict(self.content["plan"])

    @property
    def columns(self) -> builtins.list[str]:
        return [column["name"] for column in self.content["columns"] or ()]

    @property
    def rows(self) -> builtins.list[builtins.list[Any]]:
        return [*(self.content["rows"] or ())]

    @property
    def text(self) -> str | None:
        text = self.content["text"]
        return None if text is None else str(text)

    def to_pandas(self) -> Any:
        """The rows that are shown as a pandas DataFrame.

        Raises
        ------
        RefusedInput
            ``not_a_table``: the file is no table.
        Unavailable
            ``library_missing``: pandas is not in this environment.
        """
        if self.content["rows"] is None:
            raise RefusedInput(
                "not_a_table", f"{_place(self.content)} shows no rows.", hint="Preview a csv, jsonl or parquet file."
            )
        return library("pandas", extra="pandas", purpose="A data frame").DataFrame(self.rows, columns=self.columns)

    def __repr__(self) -> str:
        head = " · ".join([_place(self.content), *_summary(self.content)])
        return "\n".join([head, *_plain_body(self.content)])

    def _repr_html_(self) -> str:
        head = f"<b>{html.escape(_place(self.content))}</b> · " + html.escape(" · ".join(_summary(self.content)))
        return f"<div>{head}</div>{_html_body(self.content)}"


def list(root_path: str = "home", *, limit: int = 200, page: str | None = None) -> Folder:  # noqa: A001
    """One page of a folder, e.g. ``atelier.data.list("home/data")`` or ``atelier.data.list("datasets/samples")``.

    Raises
    ------
    RefusedInput
        ``unknown_root``, ``bad_path``, ``not_a_folder``.
    NotFound
        ``not_found``: no such folder, or no such root for you.
    """
    root, path = split_root(root_path)
    if root == "home":
        from atelier.data.roots import home_root, list_folder

        return Folder(list_folder(home_root(), path, limit=limit, page=page))
    return Folder(_client().root_list(root, path, limit=limit, page=page))


def preview(
    root_path: str,
    *,
    rows: int = 50,
    columns: Sequence[str] | None = None,
    budget_bytes: int = 32_000_000,
    budget_s: float = 5.0,
) -> Preview:
    """A look at a file within a budget, e.g. ``atelier.data.preview("home/train.parquet")``.

    Parameters
    ----------
    root_path : str
        ``home/…``, ``datasets/<name>/…`` or ``runs/<id>/…``.
    rows : int
        Most rows of a table.
    columns : sequence of str or None
        Columns of a parquet file; None takes the first 20 that fit.
    budget_bytes, budget_s
        Most bytes to read and seconds to take; over it only metadata is shown, with the cost of more.
    """
    root, path = split_root(root_path)
    wanted: dict[str, Any] = {"rows": rows, "columns": columns, "budget_bytes": budget_bytes, "budget_s": budget_s}
    if root == "home":
        from atelier.data import previews
        from atelier.data.roots import home_root

        return Preview(previews.preview(home_root(), path, **wanted))
    return Preview(_client().root_preview(root, path, **wanted))


def _client() -> Any:
    from atelier.client import Client

    return Client.find()


def _place(content: dict[str, Any]) -> str:
    return f"{content['root']}/{content['path']}".rstrip("/")


def _sign(item: dict[str, Any]) -> str:
    return "▸ " if item["type"] == "folder" else "→ " if item["kind"] == "link" else ""


def _size(item: dict[str, Any]) -> str:
    return "" if item["size_bytes"] is None else f"  {format_bytes(item['size_bytes'])}"


def _count(content: dict[str, Any]) -> str:
    shown, total = len(content["items"]), content["total"]
    return (
        f"{shown:,} of {total:,} entries"
        if total is not None
        else f"{shown:,} entries" + (", and more" if content["next"] else "")
    )


def _summary(content: dict[str, Any]) -> Iterator[str]:
    yield content["kind"]
    if content["size_bytes"] is not None:
        yield format_bytes(content["size_bytes"])
    yield from (f"{label} {value}" for label, value in content["facts"].items())
    if content["total_rows"] is not None and "rows" not in content["facts"]:
        yield f"{content['total_rows']:,} rows"
    if content["note"]:
        yield content["note"]


def _plain_body(content: dict[str, Any]) -> Iterator[str]:
    if content["rows"] is not None:
        yield "\t".join(column["name"] for column in content["columns"])
        yield from ("\t".join("" if cell is None else str(cell) for cell in row) for row in content["rows"])
    elif content["text"] is not None:
        yield content["text"]
    elif content["cells"] is not None:
        yield from (f"[{cell['kind']}] {cell['source']}" for cell in content["cells"])


def _html_body(content: dict[str, Any]) -> str:
    if content["image"]:
        encoded = content["image"]["png_base64"]
        return (
            f'<img alt="{html.escape(content["name"])}" src="data:image/png;base64,{encoded}" style="max-width:100%"/>'
        )
    if content["rows"] is not None:
        return _html_table([column["name"] for column in content["columns"]], content["rows"])
    text = (
        content["text"]
        if content["text"] is not None
        else "\n\n".join(cell["source"] for cell in content["cells"] or ())
    )
    return f'<pre style="max-height:30em;overflow:auto;white-space:pre-wrap">{html.escape(text)}</pre>' if text else ""


def _html_table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    head = "".join(f'<th style="{_CELL}">{html.escape(str(name))}</th>' for name in names)
    body = "".join(
        "<tr>"
        + "".join(f'<td style="{_CELL}">{"" if cell is None else html.escape(str(cell))}</td>' for cell in row)
        + "</tr>"
        for row in rows
    )
    return f'<table style="{_TABLE}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
