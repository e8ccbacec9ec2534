"""What the export form asks for: which formats a model has, the export step by step, its report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from atelier.errors import AtelierError
from atelier.exporters import FORMATS, ModelPackage, Step, export, formats_of
from atelier.exporters.formats import make_source
from atelier.exporters.package import package_files

_DEFAULT_FORMATS = ("onnx",)


@dataclass
class Exporting:
    """The answers of an export form for one model.

    Parameters
    ----------
    model, example : object
        As `atelier.export` takes them.
    options : dict
        What else goes to `atelier.exporters.export`, e.g. ``labels`` and ``tolerance``.
    """

    model: Any
    example: Any
    options: dict[str, Any] = field(default_factory=dict)
    package: ModelPackage | None = None

    def describe(self, name: str) -> dict[str, Any]:
        """The model, and the formats that it can be exported to."""
        framework = make_source(self.model, self.example).framework
        formats = [
            {"name": one, "title": FORMATS[one], "picked": one in _DEFAULT_FORMATS} for one in formats_of(framework)
        ]
        return {"framework": framework, "model": type(self.model).__name__, "formats": formats, "name": name}

    def export(
        self, formats: Sequence[str], name: str, *, publish: bool, on_step: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        """Export, prove, package, and publish where asked; the report as `report_of`, or the error with its numbers."""
        try:
            self.package = export(
                self.model,
                self.example,
                formats=list(formats),
                name=name,
                on_step=lambda step: on_step(as_news(step)),
                **self.options,
            )
            if publish:
                on_step({"name": "publish", "format": "", "state": "begun", "seconds": None})
                from atelier.registry.publishing import publish as hand_over

                self.package = hand_over(self.package, name)
                on_step({"name": "publish", "format": "", "state": "done", "seconds": None})
        except AtelierError as problem:
            return {"report": None, "error": as_error(problem)}
        return {"report": report_of(self.package), "error": None}


def as_news(step: Step) -> dict[str, Any]:
    """A step as the page gets it."""
    return asdict(step)


def as_error(problem: AtelierError) -> dict[str, Any]:
    """An error of an export; the numbers of a model that differs come as a table too."""
    rows = [row for name, report in (problem.detail.get("formats") or {}).items() for row in rows_of(name, report)]
    return {"code": problem.code, "message": problem.message, "hint": problem.hint, "rows": rows}


def report_of(package: ModelPackage) -> dict[str, Any]:
    """What the page shows of a package: one row per format and batch size; ``size_bytes`` is that of all its files."""
    formats = package.report["formats"]
    return {
        "name": package.name,
        "version": package.version,
        "folder": str(package.folder),
        "size_bytes": sum(path.stat().st_size for _, path in package_files(package.folder)),
        "rows": [row for name, report in formats.items() for row in rows_of(name, report)],
    }


def rows_of(name: str, report: dict[str, Any]) -> list[dict[str, Any]]:
    """The parity table of one format; size and verdict stand in its first row."""
    latencies = [entry for entry in (report.get("latency_ms"), report.get("latency_large_ms")) if entry]
    rows = []
    for place, batch in enumerate(report["batches"]):
        usual = batch["dims"] == report["batches"][0]["dims"]
        latency = next((entry for entry in latencies if usual and entry["batch"] == batch["batch"]), None)
        rows.append(
            {
                "format": name if place == 0 else "",
                "batch": "".join([str(batch["batch"]), *(f", {dim} {size}" for dim, size in batch["dims"].items())]),
                "max_abs": batch["max_abs"],
                "max_rel": batch["max_rel"],
                "labels_equal": batch["labels_equal"],
                "within": batch["within"],
                "source_ms": latency["source"] if latency else None,
                "exported_ms": latency["exported"] if latency else None,
                "size_bytes": report.get("size_bytes") if place == 0 else None,
                "verdict": report.get("verdict") if place == 0 else None,
            }
        )
    return rows
