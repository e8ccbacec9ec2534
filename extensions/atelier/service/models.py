"""Model versions: publish from uploaded files, read, alias, remove."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any

from atelier.crash_points import crash_point
from atelier.errors import NotFound, RefusedInput
from atelier.quantities import format_bytes, utcnow
from atelier.records import ModelFile, ModelVersion
from atelier.service.fence import Fence
from atelier.service.manager import checked_model_name
from atelier.service.store import Store
from atelier.settings import Limits
from atelier.storage import BlobStore
from atelier.storage.paths import checked_path, model_key, upload_key

ARCHIVE_PART_BYTES = 1 << 20
UNFINISHED_AGE = timedelta(days=2)
"""Twice as long as an upload is kept."""


@dataclass
class ModelManager:
    """Decides on models. A version's files never change; the same content from the same run is the same version.

    A version is seen once all its files are there. One that a crash has left before that is finished by whoever
    publishes it again, or goes when its uploads are gone.
    """

    store: Store
    blobs: BlobStore
    limits: Limits
    _fence: Fence = field(default_factory=Fence, init=False)

    def publish(
        self, *, owner: str, project: str, name: str, run_id: str | None, card: dict[str, Any], files: list[ModelFile]
    ) -> ModelVersion:
        """A new version of a model from files that its owner has uploaded.

        Raises
        ------
        RefusedInput
            ``bad_name``, ``bad_path``, ``no_files``, ``path_taken``, ``unknown_upload`` (names the file),
            ``pickle_in_package``, ``too_large``.
        """
        checked_model_name(name)
        if not files:
            raise RefusedInput("no_files", f"The model {name!r} has no files.", hint="Upload its package first.")
        _check_paths([checked_path(file.path) for file in files])
        for file in files:
            self._check_upload(owner, file)
        listing = [file.model_dump() for file in sorted(files, key=lambda file: file.path)]
        digest = hashlib.sha256(json.dumps([card, listing], sort_keys=True).encode()).hexdigest()
        with self._fence.hold(owner):
            if run_id is not None:
                made_bytes = self.store.models.total_bytes(run_id, besides=digest)
                self.check_size(sum(file.size_bytes for file in files), made_bytes=made_bytes)
            crash_point("service.model.before")
            version, is_published = self.store.models.add(
                owner=owner, project=project, name=name, run_id=run_id, digest=digest, card=card, files=listing
            )
            crash_point("service.model.rows")
            if not is_published:
                self._fill(owner, name, version, files)
        crash_point("service.model.after")
        return self.version(owner, name, version)

    def check_size(self, size_bytes: int, *, made_bytes: int) -> None:
        """Refuse (``too_large``) what is more than one run may make; it has made so much before."""
        if made_bytes + size_bytes > self.limits.model_size:
            size, most = format_bytes(size_bytes), format_bytes(self.limits.model_size)
            left = format_bytes(max(0, self.limits.model_size - made_bytes))
            raise RefusedInput(
                "too_large",
                f"The model has {size}; of the {most} of models that a run may make {left} are left.",
                hint="Publish fewer or smaller ones, or ask the administrator to raise limits.model_size.",
            )

    def _fill(self, owner: str, name: str, version: int, files: list[ModelFile]) -> None:
        """Copy a version's files into its folder, where another one may lie that a crash has left, and publish it."""
        try:
            self.blobs.delete(model_key(owner, name, version))
            for file in files:
                self.blobs.copy(upload_key(owner, file.sha256), f"{model_key(owner, name, version)}/{file.path}")
                crash_point("service.model.file")
        except OSError:
            self._forget(owner, name, version)
            raise
        self.store.models.publish(owner, name, version)

    def clear_unfinished(self) -> int:
        """Remove versions whose publication was cut off and that nobody can finish: their uploads are gone."""
        before, removed = utcnow() - UNFINISHED_AGE, 0
        for found in self.store.models.unfinished(before):
            with self._fence.hold(found[0]):
                if found in self.store.models.unfinished(before):  # nobody has published it meanwhile
                    self._forget(*found)
                    removed += 1
        return removed

    def _check_upload(self, owner: str, file: ModelFile) -> None:
        from atelier.exporters.package import refuse_pickle  # loads numpy

        key = upload_key(owner, file.sha256)
        if not self.blobs.exists(key) or self.blobs.size_bytes(key) != file.size_bytes:
            raise RefusedInput(
                "unknown_upload", f"The file {file.path!r} was not uploaded.", hint="PUT it to /uploads/<sha256> first."
            )
        with self.blobs.open(key) as stream:
            refuse_pickle(file.path, stream)

    def version(self, owner: str, name: str, version: int | str) -> ModelVersion:
        """One version, by its number, by an alias, or ``latest``.

        Raises
        ------
        NotFound
            ``unknown_model``, ``unknown_version`` (with the known ones).
        """
        versions = self.store.models.versions(owner, name)
        if version == "latest":
            return versions[0]
        for one in versions:
            if str(one.version) == str(version) or version in one.aliases:
                return one
        known = [str(one.version) for one in versions] + [alias for one in versions for alias in one.aliases]
        raise NotFound(
            "unknown_version",
            f"The model {name!r} has no version {str(version)[:63]!r}.",
            hint=f"Known: {', '.join(known)}.",
        )

    def file_key(self, model: ModelVersion, path: str) -> str:
        """The blob of one file of a version."""
        if path not in {file.path for file in model.files}:
            raise NotFound(
                "unknown_file",
                f"{model.name} version {model.version} has no file {path[:200]!r}.",
                hint="Look at its files.",
            )
        return f"{model_key(model.owner, model.name, model.version)}/{path}"

    def archive(self, model: ModelVersion) -> Iterator[bytes]:
        """A zip of the whole package, in pieces, with constant memory."""
        sink = _Sink()
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for file in model.files:
                name = f"{model.name}-{model.version}/{file.path}"
                with self.blobs.open(self.file_key(model, file.path)) as source, archive.open(name, "w") as target:
                    while part := source.read(ARCHIVE_PART_BYTES):
                        target.write(part)
                        yield sink.take()
        yield sink.take()

    def alias(self, owner: str, name: str, alias: str, version: int | None) -> None:
        """Point an alias to a version, or remove it with None."""
        checked_model_name(alias, "alias")
        if alias.isdigit() or alias == "latest":
            raise RefusedInput(
                "bad_name", f"{alias!r} can't be an alias: it reads as a version.", hint="For example 'production'."
            )
        if version is not None:
            self.version(owner, name, version)
        self.store.models.set_alias(owner, name, alias, version)

    def remove(self, owner: str, name: str, version: int) -> None:
        """Forget a version, its aliases and its files."""
        model = self.version(owner, name, version)
        with self._fence.hold(owner):
            self._forget(owner, name, model.version)

    def _forget(self, owner: str, name: str, version: int) -> None:
        self.store.reserve.use(lambda: self.store.models.remove(owner, name, version))
        self.blobs.delete(model_key(owner, name, version))


def _check_paths(paths: Sequence[str]) -> None:
    """Refuse a package of which no folder could hold all files."""
    seen: set[str] = set()
    for path in paths:
        if path in seen:
            words = f"{path[:200]!r} is there twice in the package."
            raise RefusedInput("path_taken", words, hint="Name each file once.")
        seen.add(path)
    for path in paths:
        for above in map(str, PurePosixPath(path).parents):
            if above in seen:
                raise RefusedInput(
                    "path_taken",
                    f"{path[:200]!r} and {above[:200]!r} can't both be in a package: one is a folder of the other.",
                    hint="Give one of them another name.",
                )


class _Sink(io.RawIOBase):
    """Takes what a zip writer writes, front to back, and hands it on in pieces."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        self._size += len(data)
        return len(data)

    def tell(self) -> int:
        return self._size

    def seekable(self) -> bool:
        return False

    def take(self) -> bytes:
        """What was written since the last call."""
        whole, self._parts = b"".join(self._parts), []
        return whole
