"""ONNX files: give them the signature's names, and run them in ONNX Runtime."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from atelier.errors import RefusedInput
from atelier.exporters.contract import Runner
from atelier.exporters.signature import Arrays, Signature, TensorSpec
from atelier.libraries import library

FILE_NAME = "model.onnx"
SINGLE_FILE_LIMIT_BYTES = 1_800_000_000
"""Below it everything goes into one file (protobuf ends at 2 GiB); above, the weights lie in ``model.onnx.data``."""

_UNKNOWN_OPERATOR = re.compile(
    r"No Op registered for (\w+)|Fatal error: (?:\w+[:.])?(\w+)\(-?\d+\) is not a registered"
)
_OPERATOR_HINTS = {
    "Erfc": "This is the exact GELU: use keras.activations.gelu with approximate=True, or export 'savedmodel'.",
}


def name_parts(path: Path, signature: Signature) -> dict[str, Any]:
    """Give inputs, outputs and dynamic dimensions of a file the names of the signature; return opset and operators."""
    onnx = library("onnx", extra="onnx")
    model = onnx.load(str(path), load_external_data=False)
    graph = model.graph
    initializers = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in initializers]
    renames: dict[str, str] = {}
    known = {spec.name: spec for spec in signature.inputs}
    ordered = (
        signature.inputs if {value.name for value in inputs} != set(known) else [known[value.name] for value in inputs]
    )
    for values, specs in ((inputs, ordered), (list(graph.output), signature.outputs)):
        for value, spec in zip(values, specs, strict=True):
            renames[value.name] = spec.name
    dims = _dimension_names(inputs, ordered)
    _rename_values(graph, renames)
    for value in [*graph.input, *graph.output, *graph.value_info]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in dims:
                dim.dim_param = dims[dim.dim_param]
    onnx.save(model, str(path))
    opset = next((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), None)
    return {"opset": opset, "operators": sorted({node.op_type for node in graph.node})}


def _dimension_names(inputs: list[Any], specs: list[TensorSpec]) -> dict[str, str]:
    names: dict[str, str] = {}
    for value, spec in zip(inputs, specs, strict=True):
        for dim, part in zip(value.type.tensor_type.shape.dim, spec.shape, strict=True):
            if isinstance(part, str) and dim.dim_param:
                names[dim.dim_param] = part
    return names


def _rename_values(graph: Any, renames: dict[str, str]) -> None:
    taken = {name for node in graph.node for name in [*node.input, *node.output]} - set(renames)
    clash = {name: f"{name}__inner" for name in taken & set(renames.values())}
    changes = {**clash, **renames}
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = changes.get(name, name)
    for value in [*graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        value.name = changes.get(value.name, value.name)


def load_onnx(folder: Path, signature: Signature, *, threads: int) -> Runner:
    """A session of ONNX Runtime on the CPU; threads don't spin, so that they don't slow what is timed beside it.

    Raises
    ------
    RefusedInput
        ``export_not_loadable``: a converter wrote a file that is no valid model (tf2onnx does so silently).
    """
    runtime = library("onnxruntime", extra="onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = runtime.InferenceSession(str(folder / FILE_NAME), options, providers=["CPUExecutionProvider"])
    except Exception as problem:  # the runtime's errors share no base class but Exception
        raise _not_loadable(problem) from problem
    names = [spec.name for spec in signature.inputs]
    outputs = [spec.name for spec in signature.outputs]

    def run(inputs: Arrays) -> Arrays:
        return tuple(session.run(outputs, dict(zip(names, inputs, strict=True))))

    return run


def _not_loadable(problem: Exception) -> RefusedInput:
    match = _UNKNOWN_OPERATOR.search(str(problem))
    operator = next((group for group in match.groups() if group), None) if match else None
    why = f"the operation {operator!r} does not exist in ONNX" if operator else str(problem).splitlines()[0]
    return RefusedInput(
        "export_not_loadable",
        f"ONNX Runtime can't load the exported model: {why}.",
        hint=_OPERATOR_HINTS.get(
            operator or "", "Replace that operation in the model, or export the framework's own format."
        ),
        detail={"operator": operator},
    )
