"""The model registry as a user has it: publish a package, find a version, fetch its files."""

from atelier.registry.publishing import publish
from atelier.registry.reading import ModelRef, find

__all__ = ["ModelRef", "find", "publish"]
