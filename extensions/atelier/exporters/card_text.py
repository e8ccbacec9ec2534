"""A model card as Markdown, with the front matter that Hugging Face reads."""

from __future__ import annotations

from atelier.exporters.card import ModelCard
from atelier.exporters.report import FormatReport
from atelier.exporters.signature import TensorSpec
from atelier.quantities import format_bytes


def readme(card: ModelCard) -> str:
    """The README of a package: signature, labels, metrics, parity, how to load it."""
    blocks = [
        f"---\nlibrary_name: {card.framework}\ntags: [{', '.join(card.formats)}]\n---",
        f"# {card.name}",
        _origin(card),
        _table(
            ["", "name", "dtype", "shape"],
            [*_specs("input", card.signature.inputs), *_specs("output", card.signature.outputs)],
        ),
        f"Labels: {', '.join(card.labels)}." if card.labels else "",
        f"Metrics: {', '.join(f'{name} {value:.4g}' for name, value in card.metrics.items())}." if card.metrics else "",
        "## Formats, each verified against the source model",
        _table(
            ["format", "size", "largest difference", "allowed", "labels equal", "ms here, source", "ms here, export"],
            [_format_row(name, report) for name, report in card.formats.items()],
        ),
        _use(card) if "onnx" in card.formats else "",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _origin(card: ModelCard) -> str:
    libraries = ", ".join(f"{name} {version}" for name, version in card.frameworks.items())
    return f"Made with {libraries}" + (f" by run {card.lineage.run}" if card.lineage.run else "") + "."


def _specs(kind: str, specs: list[TensorSpec]) -> list[list[str]]:
    return [[kind, spec.name, spec.dtype, " × ".join(map(str, spec.shape))] for spec in specs]


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def _format_row(name: str, report: FormatReport) -> list[str]:
    labels = [row.labels_equal for row in report.batches if row.labels_equal is not None]
    latency = report.latency_ms
    return [
        name,
        format_bytes(report.size_bytes),
        f"{max(float(row.max_abs) for row in report.batches):.1e}",
        f"{report.tolerance.abs:.0e} abs, {report.tolerance.rel:.0e} rel",
        f"{min(labels):.1%}" if labels else "–",
        f"{latency.source:.3f}" if latency else "–",
        f"{latency.exported:.3f}" if latency else "–",
    ]


def _use(card: ModelCard) -> str:
    feeds = ", ".join(f'"{spec.name}": {spec.name}' for spec in card.signature.inputs)
    lines = [
        "import onnxruntime",
        'session = onnxruntime.InferenceSession("model.onnx")',
        f"outputs = session.run(None, {{{feeds}}})",
    ]
    return "## Use\n\n```python\n" + "\n".join(lines) + "\n```"
