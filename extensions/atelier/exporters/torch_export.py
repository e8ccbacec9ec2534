"""PyTorch's own graph format: ``torch.export`` to a ``.pt2`` file, without the example inputs that it would pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from atelier.errors import RefusedInput
from atelier.exporters.contract import Exporter, Runner
from atelier.exporters.signature import Arrays
from atelier.libraries import library, quiet

FILE_NAME = "model.pt2"


class TorchExport:
    """``pt2``: loads with ``torch.export.load("model.pt2").module()``, with no source code of the model."""

    format = "pt2"
    framework = "pytorch"

    def write(self, source: Any, folder: Path) -> dict[str, Any]:
        torch = library("torch", extra="torch")
        program = source.program()
        examples = program.example_inputs
        program.example_inputs = None  # they are the user's data, and torch would write them as a pickle
        try:
            with quiet("torch"):
                torch.export.save(program, str(folder / FILE_NAME))
        finally:
            program.example_inputs = examples
        return {"nodes": len(program.graph.nodes)}

    def load(self, source: Any, folder: Path) -> Runner:
        torch = library("torch", extra="torch")
        try:
            with quiet("torch"):
                module = torch.export.load(str(folder / FILE_NAME)).module()
        except Exception as problem:  # the reader raises many classes, with Exception as their only common base
            raise RefusedInput(
                "export_not_loadable",
                f"PyTorch can't load the .pt2 file that it wrote: {problem}",
                hint="Take 'onnx' or 'safetensors' for this model.",
            ) from problem

        def run(inputs: Arrays) -> Arrays:
            args, kwargs = source.call_arguments(inputs)
            return tuple(source.flat(module(*args, **kwargs)))

        return run


_: Exporter = TorchExport()
