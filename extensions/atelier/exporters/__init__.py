"""Exports models, proves that each export is equal to its source, and packages them."""

from atelier.exporters.card import ModelCard
from atelier.exporters.contract import Exporter, Source
from atelier.exporters.formats import FORMATS, formats_of
from atelier.exporters.model_package import ModelPackage
from atelier.exporters.package import check_package
from atelier.exporters.pipeline import Step, export

__all__ = [
    "FORMATS",
    "Exporter",
    "ModelCard",
    "ModelPackage",
    "Source",
    "Step",
    "check_package",
    "export",
    "formats_of",
]
