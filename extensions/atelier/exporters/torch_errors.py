"""PyTorch's walls of text about models that can't be exported, as one sentence and one hint each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from atelier.errors import RefusedInput
from atelier.exporters.learning import first_line

_SPECIALISED = re.compile(r"marked (\w+) as dynamic but your code specialized it to be a constant \((\d+)\)")
_RELATED = re.compile(r"^\s+(\w+ = .+)$", re.MULTILINE)
_USER_LINE = re.compile(r'File "([^"]+)", line (\d+), in \w+\n\s*(.+)')
_NO_ONNX_FUNCTION = re.compile(r"No ONNX function found for.*?'?([a-z_0-9]+[.:][\w.:]+)'?")


def _chain(problem: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = problem
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _place(text: str) -> str:
    found = _USER_LINE.findall(text)
    return f" ({Path(found[-1][0]).name}, line {found[-1][1]}: {found[-1][2].strip()})" if found else ""


def explain_export(problem: Exception, model: Any) -> RefusedInput:
    """Why ``torch.export`` did not take a module."""
    text = "\n".join(str(part) for part in _chain(problem))
    if "data-dependent" in text or "GuardOnDataDependentSymNode" in text or "TensorVariable.__bool__" in text:
        return RefusedInput(
            "data_dependent_control_flow",
            f"forward() takes a Python number or decision out of a tensor, which a graph can't do{_place(text)}.",
            hint="Choose between tensors with torch.where, or between branches with torch.cond, "
            "or take the decision out of forward().",
        )
    specialised = _SPECIALISED.search(text)
    if specialised:
        return _fixed_dimension(specialised[1], int(specialised[2]), model)
    if "Constraints violated" in text:
        relations = "; ".join(_RELATED.findall(text.split("Suggested fixes:")[-1])) or "see the cause above"
        return RefusedInput(
            "dimension_not_dynamic",
            f"The claimed dynamic dimensions don't fit what the model does with them: {relations}.",
            hint="Give dimensions that must be equal the same name in dynamic=, and leave fixed ones out of it.",
        )
    return RefusedInput(
        "export_failed",
        f"PyTorch can't capture this module as a graph: {first_line(problem)}{_place(text)}.",
        hint="The cause is chained to this error. Plain tensor operations in forward() are what exports well.",
    )


def _fixed_dimension(name: str, size: int, model: Any) -> RefusedInput:
    recurrent = {type(module).__name__ for module in model.modules()} & {"LSTM", "GRU", "RNN"}
    hint = "In forward(), take sizes from the input (x.shape[0]) and not from numbers, also in reshape, view and zeros."
    if recurrent and name != "batch":
        hint = (
            f"PyTorch's exporter fixes the number of steps of an {recurrent.pop()}: pad all inputs to one length, "
            f"and leave {name!r} out of dynamic=."
        )
    return RefusedInput(
        "dimension_not_dynamic",
        f"The dimension {name!r} can't vary: the model fixes it at {size}.",
        hint=hint,
        detail={"dimension": name, "size": size},
    )


def explain_conversion(problem: Exception) -> RefusedInput:
    """Why a captured module has no ONNX form."""
    text = "\n".join(str(part) for part in _chain(problem))
    match = _NO_ONNX_FUNCTION.search(text)
    if match:
        return RefusedInput(
            "unsupported_operator",
            f"ONNX has no form of the operation {match[1]}.",
            hint="Write that operation with others, or export 'pt2', which keeps it.",
            detail={"operator": match[1]},
        )
    return RefusedInput(
        "export_failed",
        f"PyTorch can't convert this model to ONNX: {first_line(problem)}.",
        hint="The cause is chained to this error; the format 'pt2' may still do.",
    )
