"""The weights alone, as safetensors: no graph, no code, readable in any language; for PyTorch and for Keras."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from atelier.errors import RefusedInput
from atelier.exporters.contract import Exporter, Runner
from atelier.exporters.signature import Arrays
from atelier.libraries import library

FILE_NAME = "weights.safetensors"


class TorchWeights:
    """``safetensors`` of a module's ``state_dict``; a tensor that two names share is written once."""

    format = "safetensors"
    framework = "pytorch"

    def write(self, source: Any, folder: Path) -> dict[str, Any]:
        writer = library("safetensors.torch", extra="safetensors")
        writer.save_model(source.model, str(folder / FILE_NAME), metadata={"format": "pt"})
        return {"tensors": len(source.model.state_dict()), "needs_code": True}

    def load(self, source: Any, folder: Path) -> Runner:
        reader = library("safetensors.torch", extra="safetensors")
        call = library("torch.func", extra="torch").functional_call
        weights = reader.load_file(str(folder / FILE_NAME))
        _check_complete(source.model, weights)

        def run(inputs: Arrays) -> Arrays:
            args, kwargs = source.call_arguments(inputs)
            return tuple(source.flat(call(source.model, weights, args, kwargs, tie_weights=True)))

        return run


def _check_complete(model: Any, weights: dict[str, Any]) -> None:
    held = {tensor.data_ptr() for name, tensor in model.state_dict().items() if name in weights}
    missing = [name for name, tensor in model.state_dict().items() if tensor.numel() and tensor.data_ptr() not in held]
    if missing:
        raise RefusedInput(
            "export_not_loadable", f"The weights file lacks {missing[0]!r}.", hint="Export another format."
        )


class KerasWeights:
    """``safetensors`` of a Keras model's variables, each under its ``path``."""

    format = "safetensors"
    framework = "keras"

    def write(self, source: Any, folder: Path) -> dict[str, Any]:
        writer = library("safetensors.numpy", extra="safetensors")
        values = {name: variable.numpy() for name, variable in _named(source.model).items()}
        writer.save_file(values, str(folder / FILE_NAME), metadata={"format": "keras"})
        return {"tensors": len(values), "needs_code": True}

    def load(self, source: Any, folder: Path) -> Runner:
        reader = library("safetensors.numpy", extra="safetensors")
        weights = reader.load_file(str(folder / FILE_NAME))
        paths = {id(variable): name for name, variable in _named(source.model).items()}
        trainable = [weights[paths[id(variable)]] for variable in source.model.trainable_variables]
        fixed = [weights[paths[id(variable)]] for variable in source.model.non_trainable_variables]
        mode = {"training": False} if "training" in inspect.signature(source.model.call).parameters else {}

        def run(inputs: Arrays) -> Arrays:
            answer, _ = source.model.stateless_call(trainable, fixed, source.call_argument(inputs), **mode)
            return tuple(source.flat(answer))

        return run


def _named(model: Any) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for variable in model.variables:
        name = str(variable.path)
        named[f"{name}:{len(named)}" if name in named else name] = variable
    return named


_torch_weights: Exporter = TorchWeights()
_keras_weights: Exporter = KerasWeights()
