"""The table of formats: which exporter writes which format of which framework."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from atelier.errors import RefusedInput
from atelier.exporters.contract import Exporter, Source
from atelier.exporters.keras_onnx import KerasOnnx
from atelier.exporters.keras_savedmodel import KerasSavedModel
from atelier.exporters.keras_source import KerasSource
from atelier.exporters.safetensors_weights import KerasWeights, TorchWeights
from atelier.exporters.torch_export import TorchExport
from atelier.exporters.torch_onnx import TorchOnnx
from atelier.exporters.torch_source import TorchSource

EXPORTERS: tuple[Exporter, ...] = (
    TorchOnnx(),
    TorchExport(),
    TorchWeights(),
    KerasOnnx(),
    KerasSavedModel(),
    KerasWeights(),
)

FORMATS: dict[str, str] = {
    "onnx": "ONNX, runs in ONNX Runtime anywhere",
    "pt2": "PyTorch's own graph (torch.export)",
    "savedmodel": "TensorFlow's own graph (SavedModel)",
    "safetensors": "weights alone, needs the model's code",
}
"""Format → what it is, in a few words."""

NATIVE = {"pytorch": "pt2", "keras": "savedmodel"}
"""Framework → its own graph format."""


def formats_of(framework: str) -> list[str]:
    """Names of the formats that models of a framework can be exported to."""
    return [exporter.format for exporter in EXPORTERS if exporter.framework == framework]


def exporters_for(framework: str, formats: str | Sequence[str]) -> list[Exporter]:
    """One exporter for each format asked for, in that order, without repeats.

    Raises
    ------
    RefusedInput
        ``unknown_format``: no such format, or not for this framework; the possible ones are in the detail.
    """
    table = {exporter.format: exporter for exporter in EXPORTERS if exporter.framework == framework}
    asked = list(dict.fromkeys([formats] if isinstance(formats, str) else formats))
    for name in asked or [""]:
        if name not in table:
            what = (
                f"a {framework} model can't be exported to {name!r}"
                if name in FORMATS
                else f"there is no format {name!r}"
            )
            raise RefusedInput(
                "unknown_format",
                f"{what[0].upper()}{what[1:]}.",
                hint=f"Possible for {framework}: {', '.join(table)}.",
                detail={"known": list(table)},
            )
    return [table[name] for name in asked]


def make_source(model: Any, example: Any, *, dynamic: Mapping[Any, Any] | None = None) -> Source:
    """The source for a model of any known framework; no framework is imported that the model doesn't come from.

    Raises
    ------
    RefusedInput
        ``unsupported_model``: neither a PyTorch module nor a Keras model.
    """
    keras, torch = sys.modules.get("keras"), sys.modules.get("torch")
    if keras is not None and isinstance(model, keras.Model):
        return KerasSource(model, example, dynamic=dynamic)
    if torch is not None and isinstance(model, torch.nn.Module):
        return TorchSource(model, example, dynamic=dynamic)
    raise RefusedInput(
        "unsupported_model",
        f"A {type(model).__module__}.{type(model).__qualname__} can't be exported.",
        hint="Give a torch.nn.Module or a Keras 3 model.",
    )
