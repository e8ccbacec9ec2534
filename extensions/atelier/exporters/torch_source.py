"""A PyTorch module as the source of an export."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from atelier.errors import RefusedInput
from atelier.exporters.learning import SMALLEST_BATCH, example_sizes, learn_signature, resized
from atelier.exporters.signature import (
    Array,
    Arrays,
    Signature,
    claimed_dimensions,
    flatten_outputs,
    narrowed,
    read_example,
)
from atelier.exporters.torch_errors import explain_export
from atelier.libraries import library, quiet


class TorchSource:
    """A PyTorch module and its example inputs (see `atelier.exporters.contract.Source`).

    A module on an accelerator is on the CPU while `inference` lasts: ONNX Runtime is held against it there, with equal
    arithmetic (a GPU's TF32 alone differs by 1e-3). It is the same object afterwards, on its device, in its modes.
    """

    framework = "pytorch"

    def __init__(self, model: Any, example: Any, *, dynamic: Mapping[Any, Any] | None = None) -> None:
        self._torch = library("torch", extra="torch")
        self.model = getattr(model, "_orig_mod", model)  # what torch.compile() wrapped
        read = read_example(example, to_array=self._to_array, names=self._argument_names())
        self._example = narrowed(read, {}, default=self._float_dtype())
        self._check_names()
        self._claims = claimed_dimensions(self._example, dynamic)
        self.example: Arrays = self._example.arrays
        self.threads = int(self._torch.get_num_threads())
        self._program: Any = None
        with self.inference():
            self.signature: Signature = learn_signature(self._example, self._claims, self._forward)

    def versions(self) -> dict[str, str]:
        return {"torch": str(self._torch.__version__)}

    @contextmanager
    def inference(self) -> Iterator[None]:
        modes = {module: module.training for module in self.model.modules()}
        tensors = [*self.model.parameters(), *self.model.buffers()]
        device = tensors[0].device if tensors else self._torch.device("cpu")
        self.model.eval()
        if device.type != "cpu":
            self.model.to("cpu")
        try:
            with self._torch.no_grad():
                yield
        finally:
            if device.type != "cpu":
                self.model.to(device)
            for module, training in modes.items():
                module.training = training

    def predict(self, inputs: Arrays) -> Arrays:
        return tuple(array for _, array in self._forward(inputs))

    predict_fast = predict

    def call_arguments(self, inputs: Arrays) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and named arguments, as tensors, with which the module is called."""
        tensors = [self._torch.from_numpy(np.ascontiguousarray(array)) for array in inputs]
        if self._example.kind == "named":
            return (), dict(zip(self._example.names, tensors, strict=True))
        return tuple(tensors), {}

    def flat(self, answer: Any) -> Arrays:
        """What a module returned, as arrays in the order of the signature."""
        return tuple(array for _, array in flatten_outputs(answer, self._to_array))

    def _forward(self, inputs: Arrays) -> list[tuple[str, Array]]:
        args, kwargs = self.call_arguments(inputs)
        return flatten_outputs(self.model(*args, **kwargs), self._to_array)

    def program(self) -> Any:
        """The module as a ``torch.export.ExportedProgram`` with the claimed dimensions; made once for all formats.

        Raises
        ------
        RefusedInput
            The module can't be captured as a graph; see `atelier.exporters.torch_errors`.
        """
        if self._program is None:
            sizes = {
                name: max(size, SMALLEST_BATCH) for name, size in example_sizes(self._example, self._claims).items()
            }
            args, kwargs = self.call_arguments(resized(self._example, self._claims, sizes))
            try:
                with quiet("torch"):
                    self._program = self._torch.export.export(
                        self.model, args, kwargs, dynamic_shapes=self._dynamic_shapes()
                    )
            except (
                Exception
            ) as problem:  # torch.export raises whatever the model's code raised, and a dozen classes of its own
                raise explain_export(problem, self.model) from problem
        return self._program

    def _dynamic_shapes(self) -> Any:
        names = sorted({name for claim in self._claims.values() for name in claim.values()})
        dims = {name: self._torch.export.Dim(name) for name in names}
        shapes = {key: {place: dims[name] for place, name in claim.items()} for key, claim in self._claims.items()}
        return shapes if self._example.kind == "named" else tuple(shapes[name] for name in self._example.names)

    def _float_dtype(self) -> str:
        dtypes = (str(tensor.dtype).removeprefix("torch.") for tensor in self.model.parameters())
        return next((dtype for dtype in dtypes if dtype in {"float16", "float32", "float64"}), "float32")

    def _argument_names(self) -> list[str]:
        parameters = inspect.signature(self.model.forward).parameters.values()
        return [part.name for part in parameters if part.kind in {part.POSITIONAL_ONLY, part.POSITIONAL_OR_KEYWORD}]

    def _check_names(self) -> None:
        parameters = inspect.signature(self.model.forward).parameters.values()
        if self._example.kind != "named" or any(part.kind == part.VAR_KEYWORD for part in parameters):
            return
        strange = sorted(set(self._example.names) - {part.name for part in parameters})
        if strange:
            raise RefusedInput(
                "unsupported_example",
                f"forward({', '.join(self._argument_names())}) has no argument {strange[0]!r}, which the example has.",
                hint="An example that is a dict names the arguments of forward(), one tensor each. "
                "A forward() that takes a dict needs a small module around it that takes one tensor for each entry.",
            )

    def _to_array(self, value: Any) -> Array | None:
        if isinstance(value, self._torch.Tensor):
            if value.dtype == self._torch.bfloat16:
                raise RefusedInput(
                    "unsupported_dtype",
                    "The model or its example is bfloat16, which can't be compared outside PyTorch.",
                    hint="Export a float32 copy: copy.deepcopy(model).float().",
                )
            return np.asarray(value.detach().cpu().numpy())
        return value if isinstance(value, np.ndarray) else None
