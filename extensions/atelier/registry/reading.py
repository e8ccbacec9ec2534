"""A version of a model in the registry: its card, its files, and the way to get them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from atelier.client import Client
from atelier.errors import NotFound, RefusedInput
from atelier.exporters.card import ModelCard
from atelier.exporters.model_package import ModelPackage
from atelier.records import ModelVersion


@dataclass(frozen=True)
class ModelRef:
    """One version of a model, which never changes; only its aliases move."""

    record: ModelVersion
    client: Client = field(repr=False)

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def version(self) -> int:
        return self.record.version

    @property
    def card(self) -> ModelCard:
        """Signature, labels, metrics, parity, lineage, environment."""
        return ModelCard.model_validate(self.record.card)

    @property
    def files(self) -> dict[str, int]:
        """Path → size in bytes."""
        return {entry.path: entry.size_bytes for entry in self.record.files}

    def fetch(self, out: str | Path | None = None) -> ModelPackage:
        """Get the whole package into a folder, by default ``<name>-<version>``, and check it against its manifest.

        Raises
        ------
        RefusedInput
            ``out_in_use``: the folder is there already and not empty.
        """
        folder = Path(out if out is not None else f"{self.name}-{self.version}").absolute()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RefusedInput("out_in_use", f"{folder} is there already.", hint="Give another folder.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{self.name}-", dir=folder.parent) as temporary:
            whole = Path(temporary, "package")
            whole.mkdir()
            for entry in self.record.files:
                self.client.model_file(self.name, self.version, entry.path, whole, sha256=entry.sha256)
            package = ModelPackage.read(whole)
            if folder.exists():
                folder.rmdir()
            whole.rename(folder)
        return replace(package, folder=folder).published_as(self.name, self.version)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        package = ModelPackage(folder=Path(f"{self.name}@{self.version}"), card=self.card)
        return package.published_as(self.name, self.version)._repr_mimebundle_()


def find(name: str, version: int | str | None = None, *, client: Client | None = None) -> ModelRef:
    """A model's newest version, the one of a number, or the one that an alias names.

    Raises
    ------
    NotFound
        ``unknown_model`` · ``unknown_version``
    """
    client = client or Client.find()
    versions = [ModelVersion.model_validate(entry) for entry in client.model(name)]
    if not versions:
        raise NotFound("unknown_model", f"There is no model {name!r}.", hint="See 'atelier models ls'.")
    for record in versions:
        if version is None or version == record.version or version in record.aliases:
            return ModelRef(record, client)
    raise NotFound(
        "unknown_version",
        f"The model {name!r} has no version {version!r}.",
        hint=f"It has: {', '.join(str(record.version) for record in versions)}.",
    )
