"""The two roles of an export: a source (a model in its framework) and an exporter (one format of one framework)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from atelier.exporters.signature import Arrays, Signature

Runner = Callable[[Arrays], Arrays]
"""Takes all inputs in the signature's order and gives all outputs in the signature's order."""


class Source(Protocol):
    """A model in its framework, ready to be asked for predictions.

    Attributes
    ----------
    framework : str
        ``"pytorch"`` or ``"keras"``.
    model : object
        The user's model itself.
    example : tuple of ndarray
        The user's example inputs, one array for each input of the signature.
    signature : Signature
    threads : int
        How many CPU threads the framework uses; the exported model is timed with as many.
    """

    framework: str
    model: Any
    example: Arrays
    signature: Signature
    threads: int

    def inference(self) -> AbstractContextManager[None]:
        """Within it the model is in inference mode; afterwards each of its parts is in the mode it was in."""

    def predict(self, inputs: Arrays) -> Arrays:
        """The model's outputs for these inputs; the reference that each export is held against."""

    def predict_fast(self, inputs: Arrays) -> Arrays:
        """The same by the framework's quickest ordinary call; used for timing only."""

    def versions(self) -> Mapping[str, str]:
        """Versions of the libraries that the model is made with."""


class Exporter(Protocol):
    """One format of one framework.

    Every exporter passes ``tests/unit/test_exporters_contract.py``: what `write` leaves in an empty folder is all that
    `load` needs, a second `write` into another folder gives the same outputs, no file is a pickle, and neither call
    changes the model.
    """

    format: str
    framework: str

    def write(self, source: Source, folder: Path) -> dict[str, Any]:
        """Write the model into a folder that exists; return facts worth keeping, e.g. ``{"opset": 20}``.

        Raises
        ------
        RefusedInput
            The model can't be written in this format; one sentence says why and the hint says what to change.
        """

    def load(self, source: Source, folder: Path) -> Runner:
        """What was written, loaded from the disk and ready to run, with ``source.threads`` threads.

        Raises
        ------
        RefusedInput
            ``export_not_loadable``: the format's own runtime refuses the files.
        """
