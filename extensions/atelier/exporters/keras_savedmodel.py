"""Keras to TensorFlow's SavedModel, the folder that TensorFlow Serving and TensorFlow itself load without Keras."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from atelier.errors import RefusedInput
from atelier.exporters.contract import Exporter, Runner
from atelier.exporters.keras_errors import explain_export
from atelier.exporters.signature import Arrays
from atelier.libraries import library, quiet

FOLDER_NAME = "saved_model"


class KerasSavedModel:
    """``savedmodel``: one function, ``serving_default``, with the names of the signature's inputs."""

    format = "savedmodel"
    framework = "keras"

    def write(self, source: Any, folder: Path) -> dict[str, Any]:
        target = str(folder / FOLDER_NAME)
        try:
            with quiet("tensorflow", "absl"):
                source.model.export(
                    target, format="tf_saved_model", verbose=False, input_signature=source.input_signature()
                )
        except Exception as problem:  # tracing runs the user's layers, which may raise anything
            raise explain_export(
                problem, source, what="a SavedModel", instead="'safetensors' keeps the weights"
            ) from problem
        return {"function": "serving_default"}

    def load(self, source: Any, folder: Path) -> Runner:
        tf = library("tensorflow", extra="tensorflow-cpu")
        try:
            with quiet("tensorflow", "absl"):
                loaded = tf.saved_model.load(str(folder / FOLDER_NAME))
        except Exception as problem:  # a broken SavedModel raises OSError, ValueError or a TensorFlow error
            raise RefusedInput("export_not_loadable", f"TensorFlow can't load the SavedModel: {problem}") from problem
        function = loaded.signatures["serving_default"]
        outputs = _in_order(list(function.structured_outputs), [spec.name for spec in source.signature.outputs])
        names = [spec.name for spec in source.signature.inputs]

        def run(inputs: Arrays) -> Arrays:
            answer = function(**{name: tf.constant(array) for name, array in zip(names, inputs, strict=True)})
            return tuple(answer[name].numpy() for name in outputs)

        return run


def _in_order(found: list[str], wanted: list[str]) -> list[str]:
    if set(found) == set(wanted):
        return wanted
    return sorted(found, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)])


_: Exporter = KerasSavedModel()
