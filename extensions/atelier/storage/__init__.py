"""Blobs: where bundles, logs, artifacts, checkpoints and models lie; one contract, one class that knows every path."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from atelier.storage.base import BlobStore
from atelier.storage.filesystem import FilesystemBlobs
from atelier.storage.paths import RunPaths

__all__ = ["BlobStore", "FilesystemBlobs", "RunPaths", "open_blobs"]


def open_blobs(url: str) -> BlobStore:
    """The blob store at a URL: ``file:///folder`` is a local folder, any other scheme goes through fsspec."""
    if url.startswith("file://"):
        return FilesystemBlobs(Path(unquote(url.removeprefix("file://"))))
    from atelier.storage.objects import ObjectBlobs

    return ObjectBlobs(url)
