"""Learns a model's signature by calling it on the example at two sizes of every dynamic dimension."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from atelier.errors import RefusedInput
from atelier.exporters.signature import (
    BATCH,
    Array,
    Arrays,
    Dynamic,
    Example,
    Signature,
    input_specs,
    output_specs,
    resize,
)

SMALLEST_BATCH = 2
"""A batch of 1 is left out: ``torch.export`` takes a size of 1 for a constant."""


def example_sizes(example: Example, claims: Dynamic) -> dict[str, int]:
    """The size that each dynamic dimension has in the example."""
    pairs = zip(example.names, example.arrays, strict=True)
    return {label: int(array.shape[place]) for name, array in pairs for place, label in claims[name].items()}


def resized(example: Example, claims: Dynamic, sizes: Mapping[str, int]) -> Arrays:
    """The example's arrays with their dynamic dimensions at these sizes."""
    specs = input_specs(example, claims)
    return tuple(resize(array, spec, sizes) for array, spec in zip(example.arrays, specs, strict=True))


def learn_signature(
    example: Example, claims: Dynamic, forward: Callable[[Arrays], list[tuple[str, Array]]]
) -> Signature:
    """Inputs as the example has them, outputs as the model gives them; what grows with a dynamic input is dynamic.

    Raises
    ------
    RefusedInput
        ``forward_failed``: the model itself fails at other sizes than the example's.
    """
    seen = []
    sizes = example_sizes(example, claims)
    for step in (0, 1):
        sizes = {name: size + step for name, size in example_sizes(example, claims).items()} | {
            BATCH: SMALLEST_BATCH + step
        }
        try:
            seen.append(forward(resized(example, claims, sizes)))
        except RefusedInput:
            raise
        except Exception as problem:  # the user's own code may raise anything
            raise _forward_failed(problem, sizes) from problem
    return Signature(inputs=input_specs(example, claims), outputs=output_specs(seen[0], seen[1], sizes))


def _forward_failed(problem: Exception, sizes: Mapping[str, int]) -> RefusedInput:
    words = ", ".join(f"{name} {size}" for name, size in sizes.items())
    return RefusedInput(
        "forward_failed",
        f"The model fails on the example at {words}: {type(problem).__name__}: {first_line(problem)}.",
        hint="In the model's code take sizes from the input (x.shape[0]), not from numbers. Where the batch is not an "
        'input\'s first dimension, as for an LSTM\'s states, say so: dynamic={"h0": {1: "batch"}}.',
        detail={"sizes": dict(sizes)},
    )


def first_line(problem: BaseException) -> str:
    """The first line of an error's text that is not empty, without its full stop."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return (lines[0] if lines else type(problem).__name__).rstrip(".")
