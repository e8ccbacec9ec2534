"""Files of the user's home as the notebook page names them: which one a path means, and new ones beside a notebook."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from atelier.errors import Conflict, InternalError, NotAllowed, NotFound, RefusedInput

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def path_below(root: Path, told: object) -> Path:
    """The file or folder that a path relative to the server's root folder means.

    Raises
    ------
    RefusedInput
        ``bad_path``: no text, absolute, a step up, a NUL.
    NotFound
        ``no_such_file``.
    """
    if not isinstance(told, str) or "\0" in told or told.startswith("/") or ".." in PurePosixPath(told).parts:
        raise RefusedInput(
            "bad_path", f"{str(told)[:200]!r} is not a path below the server's folder.", hint="Save the file first."
        )
    path = root / told
    if not os.path.exists(path):  # also for a name that no file can have
        raise NotFound("no_such_file", f"There is no file {told[:200]!r}.", hint="Save it, or reload the file list.")
    return path


def relative_parts(told: str) -> tuple[str, ...]:
    """The parts of an artifact's path, each safe to create.

    Raises
    ------
    RefusedInput
        ``bad_path``: absolute, a step up, a NUL, or a hidden file or folder (those change how programs behave).
    """
    parts = tuple(told.split("/"))
    if any(part in {"", ".", ".."} or "\0" in part or part.startswith(".") for part in parts):
        raise RefusedInput(
            "bad_path", f"{told[:200]!r} can't be written beside the notebook.", hint="Download it instead."
        )
    return parts


@contextlib.contextmanager
def new_file(folder: Path, parts: tuple[str, ...], *, replace: bool) -> Iterator[BinaryIO]:
    """A file that appears below a folder, whole, when the block ends without an error; else nothing appears.

    Folders between are made. Links below ``folder`` are never followed.

    Parameters
    ----------
    parts : tuple of str
        As `relative_parts` gives them.
    replace : bool
        Whether a file of that name may be replaced.

    Raises
    ------
    Conflict
        ``file_exists``; the free name nearest to it is in the detail.
    """
    descriptor = _open_folder(folder, parts[:-1])
    partial = f".{secrets.token_hex(8)}.atelier-partial"
    try:
        if not replace:
            _refuse_existing(descriptor, parts)
        with os.fdopen(os.open(partial, _NEW_FILE, 0o644, dir_fd=descriptor), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _give_name(descriptor, partial, parts, replace=replace)
    finally:
        _forget(descriptor, partial)
        os.close(descriptor)


def _open_folder(folder: Path, parts: tuple[str, ...]) -> int:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in parts:
        try:
            inner = _open_or_make(descriptor, part)
        except OSError as problem:
            raise NotAllowed(
                "not_a_folder",
                f"{'/'.join(parts)!r} beside the notebook is not a plain folder.",
                hint="Rename what is there.",
            ) from problem
        finally:
            os.close(descriptor)
        descriptor = inner
    return descriptor


def _open_or_make(descriptor: int, name: str) -> int:
    with contextlib.suppress(FileExistsError):  # opened below, and refused there if it is a link or a file
        os.mkdir(name, 0o755, dir_fd=descriptor)
    return os.open(name, _FOLDER, dir_fd=descriptor)


def _refuse_existing(descriptor: int, parts: tuple[str, ...]) -> None:
    if _exists(descriptor, parts[-1]):
        raise _file_exists(descriptor, parts)


def _give_name(descriptor: int, partial: str, parts: tuple[str, ...], *, replace: bool) -> None:
    try:
        if replace:
            os.replace(partial, parts[-1], src_dir_fd=descriptor, dst_dir_fd=descriptor)
        else:
            os.link(partial, parts[-1], src_dir_fd=descriptor, dst_dir_fd=descriptor, follow_symlinks=False)
    except FileExistsError as problem:
        raise _file_exists(descriptor, parts) from problem
    except OSError as problem:
        raise InternalError("not_written", f"{parts[-1]!r} could not be written: {problem.strerror}.") from problem


def _forget(descriptor: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # it was renamed, or never made
        os.unlink(name, dir_fd=descriptor)


def _file_exists(descriptor: int, parts: tuple[str, ...]) -> Conflict:
    free = next(name for name in _candidates(parts[-1]) if not _exists(descriptor, name))
    return Conflict(
        "file_exists",
        f"There is already a file {'/'.join(parts)!r} beside the notebook.",
        hint="Replace it, or keep both.",
        detail={"free": "/".join((*parts[:-1], free))},
    )


def _candidates(name: str) -> Iterator[str]:
    stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix
    return (f"{stem}-{n}{suffix}" for n in range(1, 10**6))


def _exists(descriptor: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
