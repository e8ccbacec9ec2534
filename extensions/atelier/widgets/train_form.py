"""A form that sends a notebook, script or function to the background, with its parameters checked as they are typed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import traitlets

from atelier.errors import AtelierError
from atelier.handle import RunHandle
from atelier.widgets.form import Form, page_source, page_style
from atelier.widgets.training import Training, as_error


class TrainForm(Form):
    """Train in the background.

    Parameters
    ----------
    work : str or path
        ``"train.ipynb"``, ``"train.py"``, ``"package.module"`` or ``"package.module:function"``, as it is saved.

    Attributes
    ----------
    run : RunHandle or None
        The run that was submitted last.
    values : dict
        What stands in the fields, so that a reloaded page shows it again.

    Examples
    --------
    >>> form = TrainForm("train.ipynb")  # doctest: +SKIP
    """

    _esm = page_source("train_form")
    _css = page_style("train_form")
    values = traitlets.Dict().tag(sync=True)
    run_id = traitlets.Unicode("").tag(sync=True)

    def __init__(self, work: str | os.PathLike[str]) -> None:
        self._training = Training(os.fspath(work))
        self.run: RunHandle | None = None
        training = self._training
        super().__init__(
            f"TrainForm({Path(os.fspath(work)).name}): open this notebook in JupyterLab to fill it in, "
            f"or call atelier.submit({os.fspath(work)!r}).",
            {
                "describe": training.describe,
                "places": training.places,
                "files": training.files,
                "check": training.check,
                "submit": self.submit,
            },
        )

    def submit(self, values: dict[str, Any], **order: Any) -> dict[str, Any]:
        """Submit as the page asks; the run, and the view of it that the page puts below the form."""
        try:
            self.run = self._training.submit(values, **order)
        except AtelierError as problem:
            return {"run": None, "error": as_error(problem)}
        self.run_id = self.run.id
        return {
            "run": self.run.id,
            "name": self.run.name,
            "warnings": list(self.run.warnings),
            "bundle": self.bundle_of(self.run),
            "error": None,
        }
