"""A package in the user's hands: its report, its files, and how it looks in a notebook."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

from atelier.display.bundles import MODEL_TYPE
from atelier.exporters.card import ModelCard
from atelier.exporters.package import check_package
from atelier.exporters.report import BatchParity, FormatReport
from atelier.quantities import format_bytes

_CELL = "padding:.25em .8em;text-align:{};border:0;border-bottom:1px solid var(--jp-border-color2,#8884)"
_COLUMNS = (
    "format",
    "batch",
    "max abs diff",
    "max rel diff",
    "labels equal",
    "ms, source",
    "ms, export",
    "size",
    "verdict",
)


@dataclass(frozen=True)
class ModelPackage:
    """A verified model on the disk.

    Attributes
    ----------
    folder : Path
    card : ModelCard
    version : int or None
        Its number in the registry; None while it has none (yet).
    published_name : str or None
        Its name in the registry, where that is another than the package's own.
    run : str or None
        The run that hands it to the registry; the folder goes with that run's attempt.
    """

    folder: Path
    card: ModelCard
    version: int | None = None
    published_name: str | None = None
    run: str | None = None

    @classmethod
    def read(cls, folder: str | Path) -> ModelPackage:
        """The package in a folder, each file checked against the manifest; raises as `check_package`."""
        path = Path(folder).absolute()
        return cls(folder=path, card=check_package(path))

    @property
    def name(self) -> str:
        """Its name in the registry once it is published, else the one that it was exported under."""
        return self.published_name or self.card.name

    @property
    def files(self) -> list[Path]:
        """All files of the package."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    @property
    def report(self) -> dict[str, Any]:
        """``{"formats": {"onnx": {"size_bytes", "files", "batches", "latency_ms", "tolerance", "verdict", …}}}``."""
        return {"formats": {name: report.model_dump(mode="json") for name, report in self.card.formats.items()}}

    def published_as(self, name: str, version: int) -> ModelPackage:
        """The same package, knowing its name and number in the registry."""
        return replace(self, published_name=name, version=version)

    def handed_to(self, run: str) -> ModelPackage:
        """The same package, knowing the run that publishes it."""
        return replace(self, run=run)

    def __repr__(self) -> str:
        return "\n".join([self._title(), *(_line(row) for row in [_COLUMNS, *_rows(self.card)]), self._place()])

    def _place(self) -> str:
        return f"published by run {self.run}" if self.run else f"files: {self.folder}"

    def _title(self) -> str:
        known = f", version {self.version}" if self.version is not None else ""
        return f"model {self.name}{known}: {', '.join(self.card.formats)}, equal to the {self.card.framework} model"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        bundle: dict[str, Any] = {"text/plain": repr(self), "text/html": self._html()}
        if self.version is not None:
            bundle[MODEL_TYPE] = {"name": self.name, "version": self.version}
        return bundle

    def _html(self) -> str:
        head = "".join(
            f'<th scope="col" style="{_CELL.format(_side(place))}">{name}</th>' for place, name in enumerate(_COLUMNS)
        )
        body = "".join(
            "<tr>"
            + "".join(f'<td style="{_CELL.format(_side(place))}">{escape(cell)}</td>' for place, cell in enumerate(row))
            + "</tr>"
            for row in _rows(self.card)
        )
        return (
            f'<div class="atelier-model"><p><strong>{escape(self._title())}</strong></p>'
            f'<table style="border-collapse:collapse;font-variant-numeric:tabular-nums"><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table><p>{escape(self._place())}</p></div>"
        )


def _side(place: int) -> str:
    return "left" if place in {0, len(_COLUMNS) - 1} else "right"


def _line(cells: tuple[str, ...]) -> str:
    return "  ".join(cell.ljust(12) if place == 0 else cell.rjust(12) for place, cell in enumerate(cells)).rstrip()


def _rows(card: ModelCard) -> Iterator[tuple[str, ...]]:
    for name, report in card.formats.items():
        for place, row in enumerate(report.batches):
            yield _row(name if place == 0 else "", report, row, first=place == 0)


def _row(name: str, report: FormatReport, row: BatchParity, *, first: bool) -> tuple[str, ...]:
    measured = [time for time in (report.latency_ms, report.latency_large_ms) if time and not _odd(report, row)]
    times = next((time for time in measured if time.batch == row.batch), None)
    dims = "".join(f", {dim} {size}" for dim, size in row.dims.items())
    return (
        name,
        f"{row.batch}{dims}",
        f"{float(row.max_abs):.1e}",
        f"{float(row.max_rel):.1e}",
        "–"
        if row.labels_equal is None
        else f"{row.labels_equal:.0%}"
        if row.labels_equal == 1
        else f"{row.labels_equal:.2%}",
        f"{times.source:.3f}" if times else "",
        f"{times.exported:.3f}" if times else "",
        format_bytes(report.size_bytes) if first else "",
        report.verdict if first else "",
    )


def _odd(report: FormatReport, row: BatchParity) -> bool:
    return row.dims != report.batches[0].dims
