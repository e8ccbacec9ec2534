"""The random state of a program that is not a framework's own, as plain values that can be kept and put back."""

from __future__ import annotations

import random
import sys
from typing import Any


def random_state() -> dict[str, Any]:
    """The state of `random`, and of NumPy's global generator where NumPy is loaded; JSON can hold it."""
    version, numbers, gauss = random.getstate()
    state: dict[str, Any] = {"python": [version, list(numbers), gauss]}
    if "numpy" in sys.modules:
        name, keys, place, has_gauss, cached = sys.modules["numpy"].random.get_state()
        state["numpy"] = [name, keys.tolist(), place, has_gauss, cached]
    return state


def put_back(state: dict[str, Any]) -> None:
    """Put a state back that `random_state` told."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    if "numpy" in state:
        import numpy

        name, keys, place, has_gauss, cached = state["numpy"]
        numpy.random.set_state((name, numpy.asarray(keys, dtype="uint32"), place, has_gauss, cached))
