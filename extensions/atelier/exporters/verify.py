"""Holds an exported model against its source: differences, labels and time, at every size that it claims to take."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from atelier.errors import RefusedInput
from atelier.exporters.contract import Runner, Source
from atelier.exporters.report import BatchParity, Latency, Tolerance
from atelier.exporters.signature import BATCH, Array, Arrays, random_like, resize

BATCHES = (1, 2, 7, 32)
"""One row, which converters like to freeze; two, which is what is traced; an odd one; a usual one."""

_REPEATS = 15
_TIME_BUDGET_S = 0.8


@dataclass(frozen=True)
class Verification:
    """What `verify` found; ``equal`` only when every size was within the tolerance."""

    batches: list[BatchParity]
    equal: bool


def verify(
    source: Source, run: Runner, *, tolerance: Sequence[Tolerance], batches: Sequence[int] = BATCHES
) -> Verification:
    """Compare all outputs at each batch size and, at batch 2, at three sizes of each other dynamic dimension.

    At every size two inputs go through both: rows of the user's example (repeated or cut) and seeded random ones in the
    example's range. ``tolerance`` has one entry for each output.

    Raises
    ------
    RefusedInput
        ``export_not_runnable``: the exported model fails at a size that its signature claims.
    """
    rows = [_compare(source, run, sizes, tolerance=tolerance) for sizes in _sizes(source, batches)]
    return Verification(batches=rows, equal=all(row.within for row in rows))


def check_source(source: Source, *, tolerance: Sequence[Tolerance]) -> None:
    """Refuse a model that can't be a reference: one that answers differently when asked twice, or with NaN.

    Raises
    ------
    RefusedInput
        ``not_deterministic`` · ``not_finite``
    """
    first, second = source.predict(source.example), source.predict(source.example)
    for name, one, two, allowed in zip(
        (spec.name for spec in source.signature.outputs), first, second, tolerance, strict=True
    ):
        if np.issubdtype(one.dtype, np.floating) and not np.isfinite(one).all():
            raise RefusedInput(
                "not_finite",
                f"The model's {name!r} is NaN or infinite for the example inputs.",
                hint="The training may have diverged. Look at the loss, and export an earlier checkpoint.",
            )
        if not np.allclose(one, two, atol=allowed.abs, rtol=allowed.rel):
            raise RefusedInput(
                "not_deterministic",
                f"The model gives another {name!r} when asked twice for the same inputs, so nothing can equal it.",
                hint="Something draws random numbers in inference mode (F.dropout(x) without training=self.training), "
                "or keeps a state from call to call.",
            )


def _base(source: Source) -> dict[str, int]:
    specs = zip(source.signature.inputs, source.example, strict=True)
    return {
        part: array.shape[place]
        for spec, array in specs
        for place, part in enumerate(spec.shape)
        if isinstance(part, str)
    }


def _sizes(source: Source, batches: Sequence[int]) -> Iterator[dict[str, int]]:
    base = _base(source)
    for batch in batches:
        yield {**base, BATCH: batch}
    for name in source.signature.dimensions:
        if name != BATCH:
            for size in sorted({max(1, base[name] // 2), base[name] + 1, base[name] * 2 + 1}):
                yield {**base, BATCH: 2, name: size}


def _inputs(source: Source, sizes: dict[str, int]) -> Iterator[Arrays]:
    pairs = list(zip(source.example, source.signature.inputs, strict=True))
    yield tuple(resize(array, spec, sizes) for array, spec in pairs)
    random = np.random.default_rng(sum(sizes.values()))
    yield tuple(random_like(array, spec, sizes, random=random) for array, spec in pairs)


def _compare(source: Source, run: Runner, sizes: dict[str, int], *, tolerance: Sequence[Tolerance]) -> BatchParity:
    max_abs = max_rel = 0.0
    within, agreed, labelled = True, 0, 0
    for inputs in _inputs(source, sizes):
        wanted, got = source.predict(inputs), _run(run, inputs, sizes)
        for one, other, allowed in zip(wanted, got, tolerance, strict=True):
            absolute, relative, near = differences(one, other, allowed)
            max_abs, max_rel, within = max(max_abs, absolute), max(max_rel, relative), within and near
        if is_choice(wanted[0]) and wanted[0].shape == got[0].shape:
            same = np.argmax(wanted[0], axis=-1) == np.argmax(got[0], axis=-1)
            agreed, labelled = agreed + int(same.sum()), labelled + same.size
    return BatchParity(
        batch=sizes[BATCH],
        dims={name: size for name, size in sizes.items() if name != BATCH},
        max_abs=max_abs,
        max_rel=max_rel,
        labels_equal=agreed / labelled if labelled else None,
        within=within,
    )


def _run(run: Runner, inputs: Arrays, sizes: dict[str, int]) -> Arrays:
    try:
        return run(inputs)
    except Exception as problem:  # runtimes raise their own classes, with Exception as their only common base
        words = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise RefusedInput(
            "export_not_runnable",
            f"The exported model fails at {words}, which the source model takes: {str(problem).splitlines()[0]}",
            hint="The exporter froze that size. Take sizes from the input in the model's code, "
            "or leave the dimension out of dynamic=.",
            detail={"sizes": sizes},
        ) from problem


def differences(source: Array, exported: Array, tolerance: Tolerance) -> tuple[float, float, bool]:
    """Largest absolute and relative difference, and whether all is within; another shape, or a lone NaN, is inf."""
    if source.shape != exported.shape:
        return float("inf"), float("inf"), False
    if not source.size:
        return 0.0, 0.0, True
    one, other = source.astype(np.float64), exported.astype(np.float64)
    alike = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.where(alike, 0.0, np.abs(one - other))
        gap = np.where(np.isnan(gap), np.inf, gap)
        size = np.where(np.isfinite(one), np.abs(one), 0.0)
        relative = gap / np.maximum(size, tolerance.abs or np.finfo(np.float64).tiny)
    return float(gap.max()), float(relative.max()), bool((gap <= tolerance.abs + tolerance.rel * size).all())


def is_choice(output: Array) -> bool:
    """Whether an output looks like scores of labels: floating, (N, …, C) with C > 1."""
    return output.ndim >= 2 and output.shape[-1] > 1 and bool(np.issubdtype(output.dtype, np.floating))


def measure_latency(source: Source, run: Runner, *, batch: int) -> Latency:
    """How long one call takes at a batch size, source and export in turn."""
    inputs = next(_inputs(source, {**_base(source), BATCH: batch}))
    source_ms, exported_ms = alternate(lambda: source.predict_fast(inputs), lambda: run(inputs))
    return Latency(source=round(source_ms, 4), exported=round(exported_ms, 4), batch=batch, threads=source.threads)


def alternate(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float]:
    """Median milliseconds of two calls made in turn, after two unmeasured ones each; fewer turns when they are slow."""
    times: tuple[list[float], list[float]] = ([], [])
    for call in (first, second, first, second):
        call()
    begin = time.perf_counter()
    for repeat in itertools.count():
        order = ((first, times[0]), (second, times[1])) if repeat % 2 else ((second, times[1]), (first, times[0]))
        for call, taken in order:
            start = time.perf_counter()
            call()
            taken.append((time.perf_counter() - start) * 1000)
        if repeat + 1 >= _REPEATS or (repeat >= 2 and time.perf_counter() - begin > _TIME_BUDGET_S):
            return median(times[0]), median(times[1])
    raise AssertionError("unreachable: the count has no end")
