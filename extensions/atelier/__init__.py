"""Atelier: deep-learning notebooks whose training runs in the background, is watched, and exports with proof.

Public names are resolved when first used, so ``import atelier`` loads no framework, no pydantic and no httpx.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atelier import data as data
    from atelier import keras as keras
    from atelier import torch as torch
    from atelier import widgets as widgets
    from atelier.api import catalog as catalog
    from atelier.api import export as export
    from atelier.api import models as models
    from atelier.api import run as run
    from atelier.api import runs as runs
    from atelier.api import submit as submit
    from atelier.recorder import current_run as current_run

    __version__: str

_FUNCTIONS = {
    "catalog": "atelier.api",
    "current_run": "atelier.recorder",
    "export": "atelier.api",
    "models": "atelier.api",
    "run": "atelier.api",
    "runs": "atelier.api",
    "submit": "atelier.api",
}
_NAMESPACES = ("data", "keras", "torch", "widgets")

__all__ = [
    "catalog",
    "current_run",
    "data",
    "export",
    "keras",
    "models",
    "run",
    "runs",
    "submit",
    "torch",
    "widgets",
]


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        value = getattr(importlib.import_module(_FUNCTIONS[name]), name)
    elif name in _NAMESPACES:
        value = importlib.import_module(f"atelier.{name}")
    elif name == "__version__":
        value = _version()
    else:
        raise AttributeError(f"module 'atelier' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """What a user may use: completion shows this, and `globals` would add everything that was ever imported."""
    return sorted([*__all__, "__version__"])


def _version() -> str:
    """The installed version; ``0+source`` where the package runs from a folder that nothing installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("jupyterhub-atelier")
    except PackageNotFoundError:
        return "0+source"
