"""What goes into a model and what comes out: names, dtypes, shapes, and which dimensions may vary."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from atelier.errors import RefusedInput
from atelier.records import Record

Array = npt.NDArray[Any]
Arrays = tuple[Array, ...]
"""All inputs or all outputs of one call, in the order of the signature."""

BATCH = "batch"
_DIMENSION = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class TensorSpec(Record):
    """One input or output. In ``shape`` numbers are fixed and names are dynamic, e.g. ``["batch", 1, 28, 28]``."""

    name: str
    dtype: str
    shape: list[int | str]


class Signature(Record):
    """Inputs and outputs of a model, in the order in which it takes and gives them."""

    inputs: list[TensorSpec] = Field(min_length=1)
    outputs: list[TensorSpec] = Field(min_length=1)

    @property
    def dimensions(self) -> list[str]:
        """Names of the dynamic dimensions of all inputs; the batch comes first."""
        names = {part for spec in self.inputs for part in spec.shape if isinstance(part, str)}
        return sorted(names, key=lambda name: (name != BATCH, name))


@dataclass(frozen=True)
class Example:
    """The user's example inputs as arrays, and how a model of his is called with such arrays.

    ``kind`` is ``one`` (one array), ``many`` (a flat tuple or list) or ``named`` (a flat dict).
    """

    kind: str
    names: tuple[str, ...]
    arrays: Arrays


def read_example(example: Any, *, to_array: Callable[[Any], Array | None], names: Sequence[str]) -> Example:
    """The example inputs as arrays; ``names`` are the model's own argument names, taken for a tuple.

    Raises
    ------
    RefusedInput
        ``unsupported_example``: not an array, a flat tuple or list of arrays, or a flat dict of arrays.
    """
    if isinstance(example, Mapping):
        pairs, kind = [(str(key), value) for key, value in example.items()], "named"
    elif isinstance(example, tuple) or (
        isinstance(example, list) and any(to_array(part) is not None for part in example)
    ):
        pairs, kind = [(_nth(names, place), value) for place, value in enumerate(example)], "many"
    else:
        pairs, kind = [(names[0] if names else "input", example)], "one"
    arrays = [(name, to_array(value)) for name, value in pairs]
    if not arrays:
        raise _unsupported("the example is empty")
    for (name, array), (_, value) in zip(arrays, pairs, strict=True):
        if array is None or array.dtype == object:
            raise _unsupported(f"input {name!r} is a {type(value).__name__}")
        if not array.size:
            raise _unsupported(f"input {name!r} is empty, its shape is {array.shape}")
    return Example(kind, tuple(name for name, _ in arrays), tuple(array for _, array in arrays if array is not None))


def narrowed(example: Example, dtypes: Mapping[str, str], *, default: str) -> Example:
    """The example with its float64 arrays in the dtype that the model computes in: NumPy makes float64 by itself."""
    arrays = [
        array.astype(dtypes.get(name, default)) if array.dtype == np.float64 else array
        for name, array in zip(example.names, example.arrays, strict=True)
    ]
    return Example(example.kind, example.names, tuple(arrays))


def _nth(names: Sequence[str], place: int) -> str:
    return names[place] if place < len(names) else f"input_{place}"


def _unsupported(what: str) -> RefusedInput:
    return RefusedInput(
        "unsupported_example",
        f"The example can't be used: {what}.",
        hint="Give one array, a flat tuple of arrays, or a flat dict of arrays, with the batch as first dimension.",
    )


def flatten_outputs(
    value: Any, to_array: Callable[[Any], Array | None], *, name: str = "output"
) -> list[tuple[str, Array]]:
    """The tensors of a model's answer with names: ``output``, ``output_0`` … for a tuple, the keys of a dict.

    Raises
    ------
    RefusedInput
        ``unsupported_output``: something in it is not a tensor.
    """
    array = to_array(value)
    if array is not None:
        return [(name, array)]
    if isinstance(value, Mapping):
        parts = [(str(key) if name == "output" else f"{name}_{key}", part) for key, part in value.items()]
    elif isinstance(value, (tuple, list)):
        parts = [(f"{name}_{place}", part) for place, part in enumerate(value)]
    else:
        raise RefusedInput(
            "unsupported_output",
            f"The model's {name} is a {type(value).__name__}, which an exported model can't give.",
            hint="Return tensors only: one, a tuple or a dict of them.",
        )
    return [found for key, part in parts for found in flatten_outputs(part, to_array, name=key)]


Dynamic = Mapping[str, Mapping[int, str]]


def claimed_dimensions(example: Example, dynamic: Mapping[Any, Any] | None) -> dict[str, dict[int, str]]:
    """For each input which dimensions may vary, under which name; dimension 0 is the batch if nothing else is said.

    ``dynamic`` is ``{input name: {dimension: name}}``, or ``{dimension: name}`` where there is only one input.

    Raises
    ------
    RefusedInput
        ``bad_dynamic``: an unknown input, a dimension that isn't there, a name that is no identifier, no batch left.
    """
    given = dict(dynamic or {})
    if len(example.names) == 1 and given and all(isinstance(key, int) for key in given):
        given = {example.names[0]: given}
    unknown = sorted(set(map(str, given)) - set(example.names))
    if unknown:
        raise _bad_dynamic(f"there is no input {unknown[0]!r}; the inputs are {', '.join(example.names)}")
    claims = {}
    for name, array in zip(example.names, example.arrays, strict=True):
        claims[name] = _claims_of(name, array, dict(given.get(name, {})))
    if BATCH not in {part for claim in claims.values() for part in claim.values()}:
        raise _bad_dynamic("no dimension is called 'batch'")
    return claims


def _claims_of(name: str, array: Array, given: dict[Any, Any]) -> dict[int, str]:
    for place, label in given.items():
        if not isinstance(place, int) or not 0 <= place < array.ndim:
            raise _bad_dynamic(f"input {name!r} has {array.ndim} dimensions, none of them is number {place!r}")
        if not isinstance(label, str) or not _DIMENSION.fullmatch(label):
            raise _bad_dynamic(f"{label!r} is no name for a dimension")
    if array.ndim and BATCH not in given.values():
        given.setdefault(0, BATCH)
    return given


def _bad_dynamic(what: str) -> RefusedInput:
    return RefusedInput(
        "bad_dynamic",
        f"These dynamic dimensions can't be: {what}.",
        hint='Write them as dynamic={"x": {0: "batch", 1: "time"}}.',
    )


def input_specs(example: Example, claims: Dynamic) -> list[TensorSpec]:
    """Specifications of the inputs of an example."""
    return [
        TensorSpec(
            name=name,
            dtype=str(array.dtype),
            shape=[claims[name].get(place, int(size)) for place, size in enumerate(array.shape)],
        )
        for name, array in zip(example.names, example.arrays, strict=True)
    ]


def output_specs(
    small: list[tuple[str, Array]], large: list[tuple[str, Array]], sizes: Mapping[str, int]
) -> list[TensorSpec]:
    """Specifications of outputs seen at two sets of sizes; a dimension that changed is named as the one it followed.

    ``sizes`` holds each dynamic dimension's value for ``large``; a change that follows none is called after its place.
    """
    by_size = {size: name for name, size in reversed(list(sizes.items()))}
    specs = []
    for (name, one), (_, other) in zip(small, large, strict=True):
        shape: list[int | str] = [
            int(size) if size == one.shape[place] else by_size.get(int(size), f"{name}_dim_{place}")
            for place, size in enumerate(other.shape)
        ]
        specs.append(TensorSpec(name=name, dtype=str(one.dtype), shape=shape))
    return specs


def resize(array: Array, spec: TensorSpec, sizes: Mapping[str, int]) -> Array:
    """The array with its dynamic dimensions at these sizes: rows are repeated from the start, or cut."""
    for place, part in enumerate(spec.shape):
        if isinstance(part, str):
            array = np.take(array, np.arange(sizes[part]), axis=place, mode="wrap")
    return array


def random_like(array: Array, spec: TensorSpec, sizes: Mapping[str, int], *, random: np.random.Generator) -> Array:
    """Random values between the smallest and the largest of the array, of its dtype (so tokens stay known tokens)."""
    shape = [sizes[part] if isinstance(part, str) else part for part in spec.shape]
    low, high = array.min(), array.max()
    if array.dtype == bool:
        return random.random(shape) < 0.5
    if np.issubdtype(array.dtype, np.integer):
        return random.integers(int(low), int(high), shape, dtype=array.dtype, endpoint=True)
    if low == high:
        low, high = low - 1, high + 1
    return np.asarray(random.uniform(float(low), float(high), shape)).astype(array.dtype)
