"""What Keras and TensorFlow say of models that can't be exported, as one sentence and one hint."""

from __future__ import annotations

import re
from typing import Any

from atelier.errors import RefusedInput
from atelier.libraries import library, quiet

_COLOURED = re.compile(r"\x1b\[1m(.+?)\x1b\[0m", re.DOTALL)
_NEEDS_VALUE = re.compile(
    r"symbolic `?tf\.Tensor|as a Python `?bool|SymbolicTensor|KerasTensor|(?:float|int|bool)\(\) argument"
    r"|has no attribute 'numpy'|object cannot be interpreted as an integer|Cannot convert a symbolic"
)


def explain_export(problem: Exception, source: Any, *, what: str, instead: str) -> RefusedInput:
    """Why Keras did not write a model; ``what`` it was to be written as, ``instead`` what may still do."""
    cause = problem if "never called" not in str(problem) else _trace_problem(source) or problem
    words = _told(cause)
    if _NEEDS_VALUE.search(str(cause)):
        return RefusedInput(
            "data_dependent_control_flow",
            f"call() takes a Python number or decision out of a tensor, which an exported graph can't do: {words}.",
            hint="Choose between tensors with keras.ops.where, or between branches with keras.ops.cond, "
            "or take the decision out of call().",
        )
    return RefusedInput(
        "export_failed",
        f"Keras can't write this model as {what}: {words}.",
        hint=f"The cause is chained to this error. Layers made of keras.ops are what exports well; {instead}.",
    )


def _trace_problem(source: Any) -> Exception | None:
    """What stops the model from being traced; Keras itself swallows it and says that the model was never called."""
    tf = library("tensorflow", extra="tensorflow-cpu")
    try:
        with quiet("tensorflow", "absl"):
            tf.function(lambda inputs: source.model(inputs, training=False)).get_concrete_function(
                *source.input_signature()
            )
    except Exception as problem:  # the user's layers may raise anything
        return problem
    return None


def _told(problem: Exception) -> str:
    coloured = _COLOURED.search(str(problem))
    lines = (coloured[1] if coloured else str(problem)).strip().splitlines()
    return (lines[0] if lines else type(problem).__name__).strip().rstrip(".")
