"""What a verification found, as it stands in ``model.json`` and on the screen."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from atelier.errors import RefusedInput
from atelier.records import Record

_ABSOLUTE_RELATIVE = {"float64": (1e-9, 1e-7), "float32": (1e-4, 1e-3), "float16": (1e-2, 1e-2)}
"""Allowed differences by dtype. float32: two runtimes that sum 10⁴ products in another order differ by about 1e-5."""


def _finite_or_text(value: Any) -> Any:
    return value if value is None or isinstance(value, str) or np.isfinite(value) else str(float(value))


Difference = Annotated[float | Literal["inf", "nan"], BeforeValidator(_finite_or_text)]
"""A difference; JSON can't carry an infinite one, so that is a text."""


class Tolerance(Record):
    """Outputs are equal where ``|exported - source| <= abs + rel · |source|`` everywhere (NumPy's ``allclose``)."""

    abs: float = Field(ge=0)
    rel: float = Field(ge=0)


class BatchParity(Record):
    """One size of input: the largest differences over the example's rows and over random inputs.

    ``max_rel`` is the largest ``|exported - source| / max(|source|, tolerance.abs)``. ``labels_equal`` is the share of
    rows with the same argmax over the last axis of the first output, None where that is no choice between labels.
    """

    batch: int
    dims: dict[str, int] = Field(default_factory=dict)
    max_abs: Difference
    max_rel: Difference
    labels_equal: float | None
    within: bool


class Latency(Record):
    """Median milliseconds of one call, source and export in turn, with the same number of threads."""

    source: float
    exported: float
    batch: int = 1
    threads: int


class FormatReport(Record):
    """Everything known of one exported format."""

    size_bytes: int
    files: list[str]
    batches: list[BatchParity]
    latency_ms: Latency | None = Field(
        description="at the smallest batch; None for weights, which nothing runs by themselves"
    )
    latency_large_ms: Latency | None = Field(description="at the largest batch")
    tolerance: Tolerance
    verdict: Literal["equal", "different"]
    seconds: float
    details: dict[str, Any] = Field(default_factory=dict)


def tolerance_for(dtype: str, given: Any = None) -> Tolerance:
    """The user's tolerance, a number for both or ``{"abs": …, "rel": …}``, else the dtype's (0 for integers).

    Raises
    ------
    RefusedInput
        ``bad_tolerance``: negative, not a number, another key.
    """
    absolute, relative = _ABSOLUTE_RELATIVE.get(dtype, (0.0, 0.0))
    if given is None:
        return Tolerance(abs=absolute, rel=relative)
    parts = dict(given) if isinstance(given, dict) else {"abs": given, "rel": given}
    sound = set(parts) <= {"abs", "rel"} and all(
        isinstance(part, (int, float)) and not isinstance(part, bool) and 0 <= part < float("inf")
        for part in parts.values()
    )
    if not sound:
        raise RefusedInput(
            "bad_tolerance", f"{given!r} is no tolerance.", hint='Write a number, or {"abs": 1e-4, "rel": 1e-3}.'
        )
    return Tolerance(abs=parts.get("abs", absolute), rel=parts.get("rel", relative))
