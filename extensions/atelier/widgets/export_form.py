"""A form that exports a model step by step, shows the proof that the export is equal, and gives the download."""

from __future__ import annotations

from typing import Any

import traitlets

from atelier.exporters.card import check_name
from atelier.widgets.exporting import Exporting
from atelier.widgets.form import Form, page_source, page_style


class ExportForm(Form):
    """Export a model.

    Parameters
    ----------
    model : torch.nn.Module or keras.Model
        A trained model.
    example : array, tensor, or tuple or dict of these
        One batch of real inputs.
    name : str
        What the form suggests as the model's name: lower-case letters, digits, dots and hyphens.
    **options
        As in `atelier.export`: ``labels``, ``tolerance``, ``dynamic``, ``metrics``.

    Attributes
    ----------
    package : ModelPackage or None
        What was exported last.

    Examples
    --------
    >>> ExportForm(model, images[:8], name="digits")  # doctest: +SKIP
    """

    _esm = page_source("export_form")
    _css = page_style("export_form")
    report = traitlets.Dict().tag(sync=True)

    def __init__(self, model: Any, example: Any, *, name: str = "model", **options: Any) -> None:
        check_name(name)
        self._exporting = Exporting(model, example, options)
        super().__init__(
            f"ExportForm({type(model).__name__}): open this notebook in JupyterLab to export, "
            f"or call atelier.export(model, example, name={name!r}).",
            {"describe": lambda: self._exporting.describe(name), "export": self.export},
        )

    @property
    def package(self) -> Any:
        """What was exported last."""
        return self._exporting.package

    def export(self, formats: list[str], name: str, *, publish: bool) -> dict[str, Any]:
        """Export as the page asks, telling it each step, and give it the view of the model."""
        answer = self._exporting.export(formats, name, publish=publish, on_step=lambda step: self.tell(step=step))
        if answer["error"] is None:
            self.report = answer["report"]
            answer["bundle"] = self.bundle_of(self._exporting.package)
        return answer
