"""Verifies a backup: files have the bytes that the manifest says, and all blobs are there that the database needs."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from shutil import copyfile

from atelier.service.backups import places as at
from atelier.service.backups.objects import Manifest, Objects, sha256_of
from atelier.service.backups.wanted import WantedStream, wanted
from atelier.service.store import Store


def verify(folder: Path) -> tuple[Manifest, list[str]]:
    """What a backup holds, and a sentence for each fault; reads every byte of it.

    Raises
    ------
    RefusedInput
        ``not_a_backup``.
    """
    manifest = Manifest.read(folder)
    faults = list(_faults_of_files(manifest, Objects(folder)))
    if not faults:
        faults = list(_faults_of_database(manifest, Objects(folder)))
    return manifest, faults


def _faults_of_files(manifest: Manifest, objects: Objects) -> Iterator[str]:
    whole: set[str] = set()
    for path, content in manifest.files.items():
        if content.sha256 in whole:
            continue
        if not objects.has(content):
            yield f"{path}: its {content.size_bytes} bytes are not there ({objects.path(content.sha256)})"
        elif sha256_of(objects.path(content.sha256)) != content.sha256:
            yield f"{path}: its bytes have changed ({objects.path(content.sha256)})"
        else:
            whole.add(content.sha256)


def _faults_of_database(manifest: Manifest, objects: Objects) -> Iterator[str]:
    """What the database of a backup lacks, but for what the platform lacked already."""
    kept = manifest.files.get(at.DATABASE)
    if kept is None:
        yield f"{at.DATABASE} is not in the backup"
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(copyfile(objects.path(kept.sha256), Path(folder) / "atelier.sqlite"))
        with closing(sqlite3.connect(copy)) as connection:
            words = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        if words != ["ok"]:
            yield f"{at.DATABASE} is damaged: {words[0]}"
            return
        store = Store(f"sqlite:///{copy}")
        try:
            yield from _lacking(manifest, store)
        finally:
            store.close()


def _lacking(manifest: Manifest, store: Store) -> Iterator[str]:
    for each in wanted(store.database):
        key = each.target if isinstance(each, WantedStream) else each.key
        content = manifest.files.get(f"{at.BLOBS}/{key}")
        if key in manifest.missing:
            continue
        if isinstance(each, WantedStream):
            if each.size_bytes and (content is None or content.size_bytes != each.size_bytes):
                yield f"{key} has not the {each.size_bytes} bytes that the database tells of"
        elif each.is_needed and (content is None or content.sha256 != each.sha256):
            yield f"{key} is not what the database tells of"
