"""Optional libraries of previews, imported where they are used; says which extra to install where one is missing."""

from __future__ import annotations

import importlib
from typing import Any

from atelier.errors import Unavailable


def need(module: str, what: str) -> Any:
    """A module of an optional library.

    Raises
    ------
    Unavailable
        ``missing_library``: it is not installed in this environment; the hint is the line that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as problem:
        raise Unavailable(
            "missing_library",
            f"{what} needs {module.partition('.')[0]}, which is not in this environment.",
            hint="pip install 'jupyterhub-atelier[notebook]'",
        ) from problem
