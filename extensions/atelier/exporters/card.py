"""``model.json``: what a package says of its model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from atelier.errors import RefusedInput
from atelier.exporters.report import FormatReport
from atelier.exporters.signature import Signature
from atelier.quantities import utcnow
from atelier.records import Moment, Record

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")


class Lineage(Record):
    """Where a model came from."""

    run: str | None = None
    git_revision: str | None = None
    git_dirty: bool | None = None
    datasets: list[str] = Field(default_factory=list)


class EnvironmentLock(Record):
    """What the model was exported with: ``packages`` are sorted ``name==version`` lines."""

    python: str
    packages: list[str]


class ModelCard(Record):
    """All of ``model.json``."""

    version: Literal[1] = Field(default=1, description="schema of this file")
    name: str
    framework: str
    frameworks: dict[str, str] = Field(description="versions of the framework's libraries")
    created_at: Moment = Field(default_factory=utcnow)
    signature: Signature
    labels: list[str] | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    lineage: Lineage
    formats: dict[str, FormatReport]
    environment: EnvironmentLock


def check_name(name: str) -> str:
    """The name, when it can be a model's.

    Raises
    ------
    RefusedInput
        ``bad_name``
    """
    if not _NAME.fullmatch(str(name)):
        raise RefusedInput(
            "bad_name",
            f"{name!r} can't be the name of a model.",
            hint="Use up to 63 lower-case letters, digits, dots and hyphens, as in 'digits-cnn'.",
        )
    return name


def read_card(path: Path) -> ModelCard:
    """The card in a ``model.json``; RefusedInput ``not_a_package`` when it is none."""
    try:
        return ModelCard.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as problem:
        raise RefusedInput(
            "not_a_package", f"{path} is no model card: {problem}", hint="Export the model again."
        ) from problem
