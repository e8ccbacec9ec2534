"""What a notebook shows: views of runs and models, which need no kernel, and forms, which do.

Views are drawn live by the labextension from ids in a MIME bundle (`atelier.display.bundles`); forms are anywidgets.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atelier.widgets.data_browser import DataBrowser as DataBrowser
    from atelier.widgets.export_form import ExportForm as ExportForm
    from atelier.widgets.train_form import TrainForm as TrainForm
    from atelier.widgets.views import RunList as RunList
    from atelier.widgets.views import RunView as RunView

_MODULES = {
    "DataBrowser": "data_browser",
    "ExportForm": "export_form",
    "RunList": "views",
    "RunView": "views",
    "TrainForm": "train_form",
}

__all__ = ["DataBrowser", "ExportForm", "RunList", "RunView", "TrainForm"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'atelier.widgets' has no attribute {name!r}")
    return getattr(importlib.import_module(f"atelier.widgets.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
