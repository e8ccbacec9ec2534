"""A folder of files by their content, and the manifest that says which content each path of a home has.

What is there already is not written again, so a second backup takes what is new; and nothing that a manifest names is
ever replaced, so that a backup that is cut off leaves the one before as it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from atelier.errors import RefusedInput
from atelier.local.durable import put_in_place
from atelier.service.backups import places as at

MANIFEST = "MANIFEST.json"
FORMAT = 1
PIECE_BYTES = 1 << 20
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Content:
    """The bytes of one path. ``mtime_ns`` is their source's, None where that has none that tells a change."""

    sha256: str
    size_bytes: int
    mtime_ns: int | None = None


@dataclass
class Manifest:
    """What a backup holds: path within a home → content; ``missing`` are paths that the platform itself lacked."""

    made_at: str
    version: str
    files: dict[str, Content] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The one of a backup.

        Raises
        ------
        RefusedInput
            ``not_a_backup``: there is none, it is torn, or of a later version.
        """
        try:
            told = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            if told["format"] != FORMAT:
                raise ValueError(f"its format is {told['format']}, and this version reads {FORMAT}")
            files = {str(path): Content(**content) for path, content in told["files"].items()}
            for path, content in files.items():
                if not (at.is_place(path) and _SHA256.fullmatch(content.sha256)):
                    raise ValueError(f"{path[:200]!r} can't be restored")
            if within := next((path for path in files if not files.keys().isdisjoint(_folders_of(path))), None):
                raise ValueError(f"{within[:200]!r} lies within a file")
            return cls(str(told["made_at"]), str(told["version"]), files, [str(path) for path in told["missing"]])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
            why = f"{folder / MANIFEST}: {problem}"
            hint = "Name a folder that 'atelier backup' has made."
            raise RefusedInput("not_a_backup", f"{folder} is not a whole backup ({why}).", hint=hint) from problem

    def write(self, folder: Path) -> None:
        """Put it in place of the one before, in one step, durably."""
        told: dict[str, Any] = {"format": FORMAT} | asdict(self)
        part = folder / f".{MANIFEST}.part"
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
            json.dump(told, stream, indent=0)
            stream.flush()
            os.fsync(stream.fileno())
        put_in_place(part, folder / MANIFEST)


class Objects:
    """The files of a backup, each named by the sha256 of what is in it."""

    def __init__(self, folder: Path) -> None:
        self._root = folder / "objects"

    def path(self, sha256: str) -> Path:
        """Where a content lies, or would."""
        return self._root / sha256[:2] / sha256

    def has(self, content: Content) -> bool:
        """Whether a content is there, as a plain file, as far as its size tells."""
        try:
            status = self.path(content.sha256).lstat()
        except FileNotFoundError:
            return False
        return stat.S_ISREG(status.st_mode) and status.st_size == content.size_bytes

    def link(self, reader: BinaryIO) -> Content:
        """Keep an open file that is only ever replaced, never written into; a copy where it can't be linked."""
        status, part = os.fstat(reader.fileno()), self._part()
        try:
            # With a folder given, whose path counts for nothing, Python asks the kernel to follow the link to the file.
            os.link(f"/proc/self/fd/{reader.fileno()}", part, src_dir_fd=reader.fileno(), follow_symlinks=True)
        except OSError:  # another file system, too many links, or it was removed meanwhile
            return self.put(_pieces(reader), mtime_ns=status.st_mtime_ns)
        try:
            digest = _digest_of(_pieces(reader))
            self._name(part, digest)
        finally:
            part.unlink(missing_ok=True)
        return Content(digest, status.st_size, status.st_mtime_ns)

    def put(self, pieces: Iterable[bytes], *, mtime_ns: int | None = None) -> Content:
        """Keep bytes."""
        part, digest, size = self._part(), hashlib.sha256(), 0
        try:
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                for piece in pieces:
                    stream.write(piece)
                    digest.update(piece)
                    size += len(piece)
            self._name(part, digest.hexdigest())
        finally:
            part.unlink(missing_ok=True)
        return Content(digest.hexdigest(), size, mtime_ns)

    def _part(self) -> Path:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._root / f".part-{secrets.token_hex(8)}"

    def _name(self, part: Path, sha256: str) -> None:
        target = self.path(sha256)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        if not self.has(Content(sha256, part.stat().st_size)):
            os.replace(part, target)

    def prune(self, kept: set[str]) -> None:
        """Remove contents that no path has any more, and what was cut off."""
        for path in self._root.glob("*"):
            for each in path.iterdir() if path.is_dir() else [path]:
                if each.name not in kept:
                    each.unlink()
            with contextlib.suppress(OSError):  # it holds what is kept
                path.rmdir()


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    while piece := stream.read(PIECE_BYTES):
        yield piece


def _folders_of(path: str) -> Iterator[str]:
    """The folders that a path lies in."""
    return (path[:n] for n, letter in enumerate(path) if letter == "/")


def _digest_of(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """The digest of a file."""
    with path.open("rb") as stream:
        return _digest_of(_pieces(stream))
