"""Blobs in a folder of a local disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from atelier.local.below import PART, held_folder, made_folder, new_part, open_file, put_in_place, replacement
from atelier.storage.base import BlobStore, checked_key


class FilesystemBlobs(BlobStore):
    """A `BlobStore` below one folder; a write goes to a temporary file, is synced, and is renamed into place.

    What was written is there after a loss of power too: the folders that have its name are synced as well. No link
    below the folder is followed, since a run of the same account can put one there: it counts as nothing to be read,
    and gives way to what is written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(self, key: str, data: bytes) -> None:
        self._replace(key, lambda stream: stream.write(data))

    def put_file(self, key: str, source: Path) -> None:
        with _only_files(source.name), source.open("rb") as reader:
            self._replace(key, lambda stream: shutil.copyfileobj(reader, stream, 1 << 20))

    def _replace(self, key: str, fill: Callable[[BinaryIO], object]) -> None:
        *folders, name = _names(key)
        with made_folder(self.root, folders) as folder, replacement(folder, name) as stream:
            fill(stream)

    def open(self, key: str) -> BinaryIO:
        *folders, name = _names(key)
        with _only_files(key), held_folder(self.root, folders) as folder:
            return open_file(folder, name)

    def size_bytes(self, key: str) -> int:
        return self._status(key).st_size

    def _status(self, key: str) -> os.stat_result:
        *folders, name = _names(key)
        with _only_files(key), held_folder(self.root, folders) as folder:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError(key)
        return status

    def exists(self, key: str) -> bool:
        try:
            self._status(key)
        except FileNotFoundError:
            return False
        return True

    def keys(self, prefix: str) -> Iterator[str]:
        yield from sorted(f"{prefix}/{name}" for name in self._files(prefix) if not _is_part(name))

    def names(self, prefix: str) -> list[str]:
        try:
            with held_folder(self.root, _names(prefix)) as folder, os.scandir(f"/proc/self/fd/{folder}") as entries:
                return sorted(each.name for each in entries if not (each.is_symlink() or _is_part(each.name)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def sizes(self, prefix: str) -> dict[str, int]:
        files = self._files(prefix)
        return {f"{prefix}/{name}": files[name] for name in sorted(files) if not _is_part(name)}

    def _files(self, prefix: str) -> dict[str, int]:
        """Names below a prefix of all plain files, and their sizes; none where it is not a folder."""
        try:
            with held_folder(self.root, _names(prefix)) as folder:
                return dict(_plain_files(f"/proc/self/fd/{folder}"))
        except (FileNotFoundError, NotADirectoryError):
            return {}

    def clear_unfinished(self, prefix: str, age_s: float) -> int:
        removed = 0
        for name in filter(_is_part, self._files(prefix)):
            with contextlib.suppress(FileNotFoundError):  # its writer was only slow
                if self.age_s(f"{prefix}/{name}") > age_s:
                    self.delete(f"{prefix}/{name}")
                    removed += 1
        return removed

    def copy(self, source: str, target: str) -> None:
        """One file under both keys: blobs are replaced, never written into, so neither sees the other change."""
        self._status(source)
        *folders, name = _names(target)
        *source_folders, source_name = _names(source)
        with (
            held_folder(self.root, source_folders) as there,
            made_folder(self.root, folders) as folder,
            new_part(folder) as part,
        ):
            try:
                os.link(source_name, part, src_dir_fd=there, dst_dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                raise
            except OSError:  # a file system without hard links, or a file with too many
                with open_file(there, source_name) as reader:
                    self._replace(target, lambda stream: shutil.copyfileobj(reader, stream, 1 << 20))
                return
            put_in_place(folder, part, name)

    def delete(self, prefix: str) -> None:
        *folders, name = _names(prefix)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), held_folder(self.root, folders) as folder:
            while stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                with contextlib.suppress(FileNotFoundError):  # another one removes it too
                    shutil.rmtree(name, dir_fd=folder)
            os.unlink(name, dir_fd=folder)

    def age_s(self, key: str) -> float:
        return time.time() - self._status(key).st_mtime

    def read_url(self, key: str, *, lifetime_s: float = 3600.0) -> str:
        """As `BlobStore.read_url`; its path has no link, so that whoever opens it need follow none."""
        return self.root.resolve().joinpath(*_names(key)).as_uri()

    def write_url(self, key: str, *, lifetime_s: float = 3600.0) -> str:
        with made_folder(self.root, _names(key)[:-1]):
            return self.read_url(key)


def _names(key: str) -> list[str]:
    return checked_key(key).split("/")


def _plain_files(top: str) -> Iterator[tuple[str, int]]:
    """Plain files at any depth and their sizes; no link is followed, and what goes meanwhile is left out."""
    waiting = [""]
    while waiting:
        below = waiting.pop()
        with contextlib.suppress(FileNotFoundError), os.scandir(f"{top}/{below}") as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{below}{entry.name}/")
                elif entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):
                        yield f"{below}{entry.name}", entry.stat(follow_symlinks=False).st_size


def _is_part(name: str) -> bool:
    return name.rpartition("/")[2].startswith(PART)


@contextlib.contextmanager
def _only_files(key: str) -> Iterator[None]:
    """A folder, or a name below a file, is a key that isn't there."""
    try:
        yield
    except (IsADirectoryError, NotADirectoryError) as problem:
        raise FileNotFoundError(key) from problem
