"""Keras to ONNX, by Keras' own call of tf2onnx (which writes invalid files in silence: each is loaded after)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from atelier.exporters.contract import Exporter, Runner
from atelier.exporters.keras_errors import explain_export
from atelier.exporters.onnx_files import FILE_NAME, load_onnx, name_parts
from atelier.libraries import library, quiet


class KerasOnnx:
    """``onnx`` of a Keras model."""

    format = "onnx"
    framework = "keras"

    def write(self, source: Any, folder: Path) -> dict[str, Any]:
        library("tf2onnx", extra="tf2onnx onnx")
        try:
            with quiet("tensorflow", "absl", "tf2onnx"):
                source.model.export(
                    str(folder / FILE_NAME), format="onnx", verbose=False, input_signature=source.input_signature()
                )
        except Exception as problem:  # tracing runs the user's layers, which may raise anything
            raise explain_export(
                problem, source, what="ONNX", instead="the format 'savedmodel' may still do"
            ) from problem
        return name_parts(folder / FILE_NAME, source.signature)

    def load(self, source: Any, folder: Path) -> Runner:
        return load_onnx(folder, source.signature, threads=source.threads)


_: Exporter = KerasOnnx()
