"""PyTorch to ONNX, by the exporter that goes through ``torch.export`` (the older one is deprecated)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from atelier.exporters.contract import Exporter, Runner
from atelier.exporters.onnx_files import FILE_NAME, SINGLE_FILE_LIMIT_BYTES, load_onnx, name_parts
from atelier.exporters.torch_errors import explain_conversion
from atelier.libraries import library, quiet


class TorchOnnx:
    """``onnx`` of a PyTorch module; one file below the limit, else ``model.onnx`` and ``model.onnx.data``."""

    format = "onnx"
    framework = "pytorch"

    def __init__(self, *, single_file_limit_bytes: int = SINGLE_FILE_LIMIT_BYTES) -> None:
        self.single_file_limit_bytes = single_file_limit_bytes

    def write(self, source: Any, folder: Path) -> dict[str, Any]:
        torch = library("torch", extra="torch")
        library("onnxscript", extra="onnx onnxscript")
        program = source.program()
        tensors = [*source.model.parameters(), *source.model.buffers()]
        size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        try:
            with quiet("torch", "onnxscript"):
                torch.onnx.export(
                    program,
                    None,
                    str(folder / FILE_NAME),
                    dynamo=True,
                    external_data=size_bytes >= self.single_file_limit_bytes,
                    input_names=[spec.name for spec in source.signature.inputs],
                    output_names=[spec.name for spec in source.signature.outputs],
                    verbose=False,
                )
        except Exception as problem:  # converter errors have no common base that is public
            raise explain_conversion(problem) from problem
        return name_parts(folder / FILE_NAME, source.signature)

    def load(self, source: Any, folder: Path) -> Runner:
        return load_onnx(folder, source.signature, threads=source.threads)


_: Exporter = TorchOnnx()
