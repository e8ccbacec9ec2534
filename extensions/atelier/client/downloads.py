"""Puts a file that the service sends into a folder: whole or not at all, and never outside of that folder."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath

import httpx

from atelier.errors import InternalError, RefusedInput, Unreachable

TRIES = 3


def safe_target(folder: Path, path: str) -> Path:
    """Where a file with this relative POSIX path belongs below a folder.

    Raises
    ------
    RefusedInput
        ``path_escapes``: absolute, with ``..``, with NUL, or through a link that leaves the folder.
    """
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or "\0" in path or ".." in parts:
        raise _escapes(path)
    target = folder.joinpath(*parts)
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        raise _escapes(path)
    return target


def _escapes(path: str) -> RefusedInput:
    return RefusedInput(
        "path_escapes",
        f"The file {path!r} would lie outside of the folder that it is fetched to.",
        hint="Nothing was written for it; fetch the other files by their names.",
    )


def download(
    open_stream: Callable[[], AbstractContextManager[httpx.Response]], target: Path, *, sha256: str | None = None
) -> Path:
    """Write a stream beside the target and rename it there when it is whole; a cut stream is asked for again.

    Raises
    ------
    InternalError
        ``wrong_content``: what came has not the sha256 that it should have; the target is untouched.
    Unreachable
        ``unreachable``: the stream was cut three times.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, TRIES + 1):
        try:
            return _write(open_stream, target, sha256)
        except httpx.TransportError as problem:
            if attempt == TRIES:
                raise Unreachable(
                    "unreachable",
                    f"The download of {target.name} was cut {TRIES} times: {str(problem) or type(problem).__name__}.",
                    hint="Try again.",
                ) from problem
    raise AssertionError("unreachable: the last try returns or raises")


def _write(open_stream: Callable[[], AbstractContextManager[httpx.Response]], target: Path, sha256: str | None) -> Path:
    digest = hashlib.sha256()
    handle, part = tempfile.mkstemp(prefix=f".{target.name[:100]}.", suffix=".part", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file, open_stream() as response:
            for chunk in response.iter_bytes():
                digest.update(chunk)
                file.write(chunk)
        if sha256 and digest.hexdigest() != sha256:
            raise InternalError(
                "wrong_content",
                f"{target.name} came with sha256 {digest.hexdigest()}, and should have {sha256}.",
                hint="Try again; if it recurs, the service's storage is damaged.",
            )
        os.chmod(part, 0o666 & ~_umask())
        os.replace(part, target)
    finally:
        Path(part).unlink(missing_ok=True)
    return target


def _umask() -> int:
    """The process's file mode mask; the system can only tell it by setting one."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
