"""From a model in memory to a verified package on the disk; over tolerance, nothing is left there."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from atelier.errors import RefusedInput
from atelier.exporters.card import ModelCard, check_name
from atelier.exporters.contract import Exporter, Source
from atelier.exporters.formats import exporters_for, make_source
from atelier.exporters.model_package import ModelPackage
from atelier.exporters.package import MANIFEST_NAME, check_package, package_files, seal
from atelier.exporters.provenance import environment_lock, lineage
from atelier.exporters.report import FormatReport, Tolerance, tolerance_for
from atelier.exporters.verify import BATCHES, check_source, measure_latency, verify


@dataclass(frozen=True)
class Step:
    """One step of an export as it begins and as it ends. ``format`` is empty for steps of the whole package."""

    name: Literal["check", "write", "load", "verify", "package"]
    format: str
    state: Literal["begun", "done"]
    seconds: float | None = None


OnStep = Callable[[Step], object]


def export(
    model: Any,
    example: Any,
    *,
    formats: str | Sequence[str] = ("onnx",),
    name: str = "model",
    labels: Sequence[str] | None = None,
    tolerance: float | Mapping[str, float] | None = None,
    dynamic: Mapping[Any, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    datasets: Sequence[str] = (),
    out: str | Path | None = None,
    on_step: OnStep | None = None,
) -> ModelPackage:
    """Export a model, prove that each export equals it, and package the result.

    Parameters
    ----------
    model : torch.nn.Module or keras.Model
        Left as it is: same weights, same device, each layer in the mode that it was in.
    example : array, tuple of arrays or dict of arrays
        Real inputs, batch first; NumPy arrays or the framework's tensors. A dict names the arguments of ``forward``.
    formats : str or sequence of str
        ``"onnx"``, ``"pt2"`` (PyTorch), ``"savedmodel"`` (Keras), ``"safetensors"`` (weights alone).
    name : str
        Lower-case letters, digits, dots and hyphens.
    labels : sequence of str, optional
        Names of the classes, in the order of the last axis of the first output.
    tolerance : float or {"abs": float, "rel": float}, optional
        Allowed difference; the default depends on the outputs' dtype (float32: 1e-4 absolute + 1e-3 relative).
    dynamic : dict, optional
        Dimensions besides the batch that may vary, ``{"x": {1: "time"}}``; each is verified at three sizes.
    metrics : dict, optional
        What is known of the model's quality; kept in ``model.json``.
    datasets : sequence of str, optional
        Dataset versions that it was trained on; kept in ``model.json``.
    out : path, optional
        The package's folder, by default ``.atelier/models/<name>``. Only an older package there is replaced.
    on_step : callable, optional
        Called with a `Step` as each one begins and ends.

    Returns
    -------
    ModelPackage

    Raises
    ------
    RefusedInput
        ``parity_failed`` with all numbers in the detail, or a code that says why this model can't be exported.
    Unavailable
        ``library_missing``
    """
    check_name(name)
    source = make_source(model, example, dynamic=dynamic)
    card = Draft(name=name, labels=_check_labels(labels, source), metrics=dict(metrics or {}), datasets=tuple(datasets))
    exporters = exporters_for(source.framework, formats)
    return build(source, exporters, draft=card, tolerance=tolerance, out=_target(out, name), on_step=on_step or _silent)


@dataclass(frozen=True)
class Draft:
    """What the card of a package says besides what is measured."""

    name: str
    labels: list[str] | None
    metrics: dict[str, float]
    datasets: tuple[str, ...]


def build(
    source: Source, exporters: Sequence[Exporter], *, draft: Draft, tolerance: Any, out: Path, on_step: OnStep
) -> ModelPackage:
    """Run exporters on a source and put what they wrote into ``out``, whole or not at all."""
    allowed = [tolerance_for(spec.dtype, tolerance) for spec in source.signature.outputs]
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{draft.name}-", dir=out.parent) as temporary, source.inference():
        folder = Path(temporary, "package")
        folder.mkdir()
        with _timed(on_step, "check", ""):
            check_source(source, tolerance=allowed)
        reports = {
            one.format: _one_format(source, one, folder, allowed, draft.name, on_step=on_step) for one in exporters
        }
        with _timed(on_step, "package", ""):
            seal(folder, _card(source, draft, reports))
            card = check_package(folder)
            _replace(folder, out)
    return ModelPackage(folder=out, card=card)


def _one_format(
    source: Source, exporter: Exporter, folder: Path, allowed: list[Tolerance], name: str, *, on_step: OnStep
) -> FormatReport:
    before = {path for path, _ in package_files(folder)}
    begin = time.perf_counter()
    with _timed(on_step, "write", exporter.format):
        details = exporter.write(source, folder)
    with _timed(on_step, "load", exporter.format):
        run = exporter.load(source, folder)
    with _timed(on_step, "verify", exporter.format):
        found = verify(source, run, tolerance=allowed)
        runs_alone = not details.get("needs_code")
        small, large = (
            measure_latency(source, run, batch=size) if runs_alone else None for size in (BATCHES[0], BATCHES[-1])
        )
    files = [(path, file) for path, file in package_files(folder) if path not in before]
    report = FormatReport(
        size_bytes=sum(file.stat().st_size for _, file in files),
        files=[path for path, _ in files],
        batches=found.batches,
        latency_ms=small,
        latency_large_ms=large,
        tolerance=allowed[0],
        verdict="equal" if found.equal else "different",
        seconds=round(time.perf_counter() - begin, 3),
        details=details,
    )
    if not found.equal:
        raise _parity_failed(name, exporter.format, report)
    return report


def _parity_failed(name: str, format_name: str, report: FormatReport) -> RefusedInput:
    worst = max((row for row in report.batches if not row.within), key=lambda row: float(row.max_abs))
    labels = "" if worst.labels_equal is None else f", {worst.labels_equal:.1%} of the labels agree"
    return RefusedInput(
        "parity_failed",
        f"The {format_name} export of {name!r} is not equal to the model: outputs differ by up to "
        f"{float(worst.max_abs):.3g} (relative {float(worst.max_rel):.3g}) at batch {worst.batch}{labels}; "
        f"allowed are {report.tolerance.abs:g} absolute + {report.tolerance.rel:g} relative.",
        hint="Look for code that runs differently when traced (random numbers, Python state, checks for export). "
        "If the difference is only rounding, give a wider tolerance=.",
        detail={"formats": {format_name: report.model_dump(mode="json")}},
    )


def _card(source: Source, draft: Draft, reports: dict[str, FormatReport]) -> ModelCard:
    return ModelCard(
        name=draft.name,
        framework=source.framework,
        frameworks=dict(source.versions()),
        signature=source.signature,
        labels=draft.labels,
        metrics=draft.metrics,
        lineage=lineage(draft.datasets),
        formats=reports,
        environment=environment_lock(),
    )


def _check_labels(labels: Sequence[str] | None, source: Source) -> list[str] | None:
    if labels is None:
        return None
    names = [str(label) for label in labels]
    width = source.signature.outputs[0].shape[-1] if source.signature.outputs[0].shape else None
    if isinstance(width, int) and width != len(names):
        raise RefusedInput(
            "labels_mismatch",
            f"There are {len(names)} labels, and the model's first output has {width} values for each row.",
            hint="Give one label for each, in the order of the output's last axis.",
        )
    return names


def _target(out: str | Path | None, name: str) -> Path:
    folder = Path(".atelier", "models", name) if out is None else Path(out).expanduser()
    if folder.exists() and not (folder / MANIFEST_NAME).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise RefusedInput(
            "out_in_use",
            f"{folder} is there already and is no model package.",
            hint="Give another out=, or remove it yourself.",
        )
    return folder.absolute()


def _replace(folder: Path, out: Path) -> None:
    if out.exists():
        shutil.move(str(out), str(folder.parent / "before"))
    folder.rename(out)


@contextmanager
def _timed(on_step: OnStep, name: Any, format_name: str) -> Iterator[None]:
    on_step(Step(name, format_name, "begun"))
    begin = time.perf_counter()
    yield
    on_step(Step(name, format_name, "done", round(time.perf_counter() - begin, 3)))


def _silent(step: Step) -> None:
    """The default for ``on_step``."""
