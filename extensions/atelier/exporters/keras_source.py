"""A Keras model (TensorFlow backend) as the source of an export."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from atelier.errors import RefusedInput
from atelier.exporters.learning import learn_signature
from atelier.exporters.signature import (
    Array,
    Arrays,
    Example,
    Signature,
    claimed_dimensions,
    flatten_outputs,
    narrowed,
    read_example,
)
from atelier.libraries import library


class KerasSource:
    """A Keras model and its example inputs (see `atelier.exporters.contract.Source`).

    Calls pass ``training=False``, so no mode has to be set or restored. Dimensions that the model's own ``Input``
    leaves open are claimed as dynamic. TF32 is off while `inference` lasts, so that a GPU can be compared.
    """

    framework = "keras"

    def __init__(self, model: Any, example: Any, *, dynamic: Mapping[Any, Any] | None = None) -> None:
        self._keras = library("keras", extra="keras")
        if self._keras.backend.backend() != "tensorflow":
            raise RefusedInput(
                "unsupported_backend",
                f"This Keras runs on {self._keras.backend.backend()}; models are exported from the TensorFlow backend.",
                hint="Set KERAS_BACKEND=tensorflow before Keras is imported, load the model there and export it.",
            )
        self._tf = library("tensorflow", extra="tensorflow-cpu")
        self.model = model
        self._example = self._read(example)
        self._claims = claimed_dimensions(self._example, self._with_open(dynamic))
        self.example: Arrays = self._example.arrays
        self.threads = int(self._tf.config.threading.get_intra_op_parallelism_threads()) or len(os.sched_getaffinity(0))
        with self.inference():
            self.signature: Signature = learn_signature(self._example, self._claims, self._forward)

    def versions(self) -> dict[str, str]:
        return {"keras": str(self._keras.__version__), "tensorflow": str(self._tf.__version__)}

    @contextmanager
    def inference(self) -> Iterator[None]:
        experimental = self._tf.config.experimental
        before = experimental.tensor_float_32_execution_enabled()
        experimental.enable_tensor_float_32_execution(False)
        try:
            yield
        finally:
            experimental.enable_tensor_float_32_execution(before)

    def predict(self, inputs: Arrays) -> Arrays:
        return tuple(array for _, array in self._forward(inputs))

    def predict_fast(self, inputs: Arrays) -> Arrays:
        return self.flat(self.model.predict_on_batch(self.call_argument(inputs)))

    def call_argument(self, inputs: Arrays) -> Any:
        """The one argument that a Keras model takes: an array, a list of arrays, or a dict of arrays."""
        return self.structure(list(inputs))

    def structure(self, parts: list[Any]) -> Any:
        """Parts, one for each input, in the shape in which the model takes its inputs."""
        if self._example.kind == "named":
            return dict(zip(self._example.names, parts, strict=True))
        return parts if self._example.kind == "many" else parts[0]

    def flat(self, answer: Any) -> Arrays:
        """What the model returned, as arrays in the order of the signature."""
        return tuple(array for _, array in flatten_outputs(answer, self._to_array))

    def _forward(self, inputs: Arrays) -> list[tuple[str, Array]]:
        return flatten_outputs(self.model(self.call_argument(inputs), training=False), self._to_array)

    def input_signature(self) -> list[Any]:
        """The inputs as ``tf.TensorSpec`` in the model's own structure, dynamic dimensions as None."""
        specs = [
            self._tf.TensorSpec(
                [None if isinstance(part, str) else part for part in spec.shape], spec.dtype, name=spec.name
            )
            for spec in self.signature.inputs
        ]
        return [self.structure(specs)]

    def _inputs(self) -> dict[str, Any]:
        """The model's own symbolic inputs by name; empty for a model that has none, as a subclass of Model."""
        tensors = list(getattr(self.model, "inputs", None) or [])
        if isinstance(self.model, self._keras.Sequential) or len(tensors) < 2:
            return {_own_name(tensor, "input"): tensor for tensor in tensors}
        given = self.model.input
        if isinstance(given, Mapping):
            return dict(given)
        return {_own_name(tensor, f"input_{place}"): tensor for place, tensor in enumerate(tensors)}

    def _read(self, example: Any) -> Example:
        inputs = self._inputs()
        read = read_example(example, to_array=self._to_array, names=list(inputs))
        dtypes = {name: str(tensor.dtype) for name, tensor in inputs.items()}
        return narrowed(read, dtypes, default=self._keras.config.floatx())

    def _with_open(self, dynamic: Mapping[Any, Any] | None) -> Mapping[Any, Any]:
        given = dict(dynamic or {})
        if given and all(isinstance(key, int) for key in given):
            given = {self._example.names[0]: given}
        for name, tensor in self._inputs().items():
            still_open = {place: f"dim{place}" for place, size in enumerate(tensor.shape) if size is None and place}
            if still_open and name in self._example.names:
                given[name] = still_open | dict(given.get(name, {}))
        return given

    def _to_array(self, value: Any) -> Array | None:
        if isinstance(value, np.ndarray):
            return value
        return np.asarray(value) if self._tf.is_tensor(value) or self._keras.ops.is_tensor(value) else None


def _own_name(tensor: Any, otherwise: str) -> str:
    return otherwise if str(tensor.name).startswith("keras_tensor") else str(tensor.name)
