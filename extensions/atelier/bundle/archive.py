"""The bundle as a file: a deterministic ``tar.zst`` with a manifest in front, packed and safely unpacked.

The same names, contents and executable bits give the same bytes: sorted, no times, no owners, modes 644 and 755 only.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from atelier.bundle.names import is_too_long
from atelier.errors import Conflict, RefusedInput

MANIFEST = ".atelier-manifest.json"
"""First member of every bundle; no file of a user can have this name, since hidden files never go in."""

MAX_FILES = 50_000
_VERSION = 1
_MAX_MANIFEST_BYTES = 64 * 2**20
_MAX_KEPT_BYTES = 32 << 20
_MAX_SOURCE_BYTES = 8 * 2**20
_MAX_WINDOW_BYTES = 2**27
_HEADER_BYTES_PER_FILE = 4096
_CHUNK_BYTES = 1 << 20
_ZSTD_LEVEL = 3


@dataclass(frozen=True)
class PlannedFile:
    """A file that goes into a bundle: its POSIX path there, and where it lies here."""

    path: str
    source: Path
    size_bytes: int
    executable: bool = False


def write_archive(files: Iterable[PlannedFile], destination: Path) -> str:
    """Pack files into ``destination`` (replaced at once when done); returns the sha256 of its bytes.

    Raises
    ------
    Conflict
        ``file_changed``: a file was changed, removed or replaced by something else while it was read.
    """
    import zstandard

    ordered = sorted(files, key=lambda file: file.path)
    entries = [_entry(file) for file in ordered]
    manifest = json.dumps({"version": _VERSION, "files": entries}, sort_keys=True, separators=(",", ":")).encode()
    unfinished = destination.with_name(f"{destination.name}.{os.getpid()}.part")
    try:
        with open(unfinished, "wb") as raw:
            hashing = _HashingWriter(raw)
            compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_content_size=False)
            with (
                compressor.stream_writer(hashing, closefd=False) as packed,  # type: ignore[arg-type]
                tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
            ):
                tar.addfile(_header(MANIFEST, len(manifest), 0o644), io.BytesIO(manifest))
                for file, entry in zip(ordered, entries, strict=True):
                    _add(tar, file, entry)
        os.replace(unfinished, destination)
    finally:
        with suppress(FileNotFoundError):
            unfinished.unlink()
    return hashing.hexdigest()


class _HashingWriter:
    """A sink that hashes what it passes on."""

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink = sink
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        return self._sink.write(data)

    def flush(self) -> None:
        self._sink.flush()

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def _entry(file: PlannedFile) -> dict[str, Any]:
    digest = hashlib.sha256()
    with _opened(file) as source:
        size_bytes = 0
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
            size_bytes += len(chunk)
    return {
        "path": file.path,
        "size_bytes": size_bytes,
        "sha256": digest.hexdigest(),
        "mode": 0o755 if file.executable else 0o644,
    }


@contextmanager
def _opened(file: PlannedFile) -> Iterator[IO[bytes]]:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(file.source, flags)
    except (FileNotFoundError, NotADirectoryError) as problem:
        raise _changed(file) from problem
    except PermissionError as problem:
        raise RefusedInput(
            "file_not_readable",
            f"{file.path!r} may not be read.",
            hint="Change its permissions, or add it to .atelierignore.",
        ) from problem
    except OSError as problem:
        if problem.errno in {errno.ELOOP, errno.ENXIO}:  # a link or a socket is there now
            raise _changed(file) from problem
        raise
    with open(descriptor, "rb", buffering=0) as source:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _changed(file)
        yield source


def _changed(file: PlannedFile) -> Conflict:
    return Conflict(
        "file_changed",
        f"{file.path!r} changed while it was read.",
        hint="Submit again; if a program keeps writing it, add it to .atelierignore.",
        detail={"path": file.path},
    )


def _header(path: str, size_bytes: int, mode: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(path)
    header.size, header.mode, header.mtime = size_bytes, mode, 0
    return header


def _add(tar: tarfile.TarFile, file: PlannedFile, entry: dict[str, Any]) -> None:
    with _opened(file) as source:
        checked = _CheckedReader(source)
        try:
            tar.addfile(_header(file.path, entry["size_bytes"], entry["mode"]), checked)  # type: ignore[arg-type]
        except OSError as problem:
            if isinstance(problem, EOFError) or "unexpected end of data" in str(problem):
                raise _changed(file) from problem
            raise
        if checked.hexdigest() != entry["sha256"] or source.read(1):
            raise _changed(file)


class _CheckedReader:
    """A source that hashes what is read of it."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._hash = hashlib.sha256()

    def read(self, size_bytes: int) -> bytes:
        parts = []
        while size_bytes > 0 and (data := self._source.read(size_bytes)):
            parts.append(data)
            size_bytes -= len(data)
        whole = b"".join(parts)
        self._hash.update(whole)
        return whole

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def read_manifest(bundle_path: Path) -> list[dict[str, Any]]:
    """What a bundle holds: ``{"path", "size_bytes", "sha256", "mode"}`` of each file, sorted by path."""
    with _members(bundle_path, _MAX_MANIFEST_BYTES) as members:
        return _manifest(*next(members))


def read_member(bundle_path: Path, name: str, *, limit_bytes: int = 256 * 2**20) -> bytes:
    """The content of one file of a bundle.

    Raises
    ------
    FileNotFoundError
        The bundle has no such file.
    RefusedInput
        ``bad_bundle``.
    """
    with _members(bundle_path, 2**40) as members:
        for path, header, content in members:
            if path == name:
                if header.size > limit_bytes:
                    raise _bad(f"{name!r} is larger than {limit_bytes} bytes")
                return content.read()
    raise FileNotFoundError(name)


def bundle_reader(bundle_path: Path, *, limit_bytes: int = 2**40) -> Callable[[str], bytes]:
    """A reader of a bundle's files by path, for many reads: source files are kept in memory, up to 32 MiB of them.

    The reader raises FileNotFoundError for a name that the bundle does not hold, IsADirectoryError for one that only
    files below it have, and RefusedInput ``bad_bundle``.
    """
    sources: dict[str, bytes] = {}
    names: set[str] = set()

    def read(name: str) -> bytes:
        if not names:
            kept_bytes = 0
            with _members(bundle_path, limit_bytes) as members:
                expected = _expected(*next(members))  # else the agent would refuse it, after it had waited in the queue
                for path, header, content in members:
                    names.add(path)
                    entry = _struck_off(expected, path)
                    is_source = path.endswith((".py", ".ipynb")) and header.size <= _MAX_SOURCE_BYTES
                    kept = io.BytesIO() if is_source and kept_bytes + header.size <= _MAX_KEPT_BYTES else None
                    _copy_checked(entry, content, kept)
                    if kept is not None:
                        kept_bytes += header.size
                        sources[path] = kept.getvalue()
                _check_whole(expected)
        if name in sources:
            return sources[name]
        if name not in names:
            raise (IsADirectoryError if any(each.startswith(f"{name}/") for each in names) else FileNotFoundError)(name)
        return read_member(bundle_path, name)

    return read


def unpack_bundle(bundle_path: Path, folder: Path, *, limit_bytes: int) -> list[str]:
    """Unpack a bundle into a new or empty folder and check every file against the manifest.

    Parameters
    ----------
    bundle_path : Path
        The ``tar.zst``.
    folder : Path
        Made when missing.
    limit_bytes : int
        How much its files may hold together.

    Returns
    -------
    list of str
        The files' paths within the folder.

    Raises
    ------
    RefusedInput
        ``bad_bundle``: damaged, made by somebody else's tool, over the limit, or with anything in it but regular
        files with plain relative names. What was unpacked until then stays in the folder.
    Conflict
        ``folder_not_empty``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise Conflict("folder_not_empty", f"{folder} is not empty.", hint="Give a new folder.")
    with _members(bundle_path, limit_bytes) as members:
        expected = _expected(*next(members))
        written: list[str] = []
        for path, header, content in members:
            entry = _struck_off(expected, path)
            with _unpacked_file(folder / path, header) as file:
                _copy_checked(entry, content, file)
            written.append(path)
        _check_whole(expected)
    return written


def _expected(path: str, header: tarfile.TarInfo, content: IO[bytes]) -> dict[str, dict[str, Any]]:
    """Path → entry of the manifest, for each file that must come."""
    return {entry["path"]: entry for entry in _manifest(path, header, content)}


def _struck_off(expected: dict[str, dict[str, Any]], path: str) -> dict[str, Any]:
    entry = expected.pop(path, None)
    if entry is None:
        raise _bad(f"{path!r} is there twice, or is not in the manifest")
    return entry


def _copy_checked(entry: Mapping[str, Any], content: IO[bytes], sink: IO[bytes] | None) -> None:
    """Read one file to its end, into ``sink`` unless that is None; refuse it when the manifest says otherwise."""
    digest, size_bytes = hashlib.sha256(), 0
    while chunk := content.read(_CHUNK_BYTES):
        digest.update(chunk)
        size_bytes += len(chunk)
        if sink is not None:
            sink.write(chunk)
    if (size_bytes, digest.hexdigest()) != (entry.get("size_bytes", size_bytes), entry["sha256"]):
        raise _bad(f"{entry['path']!r} differs from the manifest")


def _check_whole(expected: Mapping[str, dict[str, Any]]) -> None:
    if expected:
        raise _bad(f"{next(iter(expected))!r} is missing")


@contextmanager
def _unpacked_file(target: Path, header: tarfile.TarInfo) -> Iterator[IO[bytes]]:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except (FileExistsError, NotADirectoryError) as problem:
        raise _bad(f"{header.name!r} is both a file and a folder") from problem
    with open(descriptor, "wb") as file:
        yield file
        os.fchmod(descriptor, 0o755 if header.mode & 0o100 else 0o644)


@contextmanager
def _members(bundle_path: Path, limit_bytes: int) -> Iterator[Iterator[tuple[str, tarfile.TarInfo, IO[bytes]]]]:
    import zstandard

    with open(bundle_path, "rb") as raw:
        reader = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES).stream_reader(raw)
        bounded = _BoundedReader(reader, limit_bytes + _MAX_MANIFEST_BYTES + MAX_FILES * _HEADER_BYTES_PER_FILE)
        try:
            with tarfile.open(fileobj=bounded, mode="r|", errors="strict") as tar:  # type: ignore[call-overload]
                yield _checked_members(tar, limit_bytes)
        except StopIteration as problem:
            raise _bad("it is empty") from problem
        except (tarfile.TarError, zstandard.ZstdError, EOFError, UnicodeError) as problem:
            torn = str(problem) in {"empty file", "unexpected end of data"}  # tarfile's words where zstd just ends
            raise _bad("its end is missing" if torn else str(problem) or "it is damaged") from problem


class _BoundedReader:
    """A source that ends in an error after so many bytes, whatever the archive claims (a bomb of headers)."""

    def __init__(self, source: Any, limit_bytes: int) -> None:
        self._source = source
        self._left_bytes = limit_bytes

    def read(self, size_bytes: int) -> bytes:
        data: bytes = self._source.read(size_bytes)
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            raise _bad("it unpacks to more than the limit")
        return data


def _checked_members(tar: tarfile.TarFile, limit_bytes: int) -> Iterator[tuple[str, tarfile.TarInfo, IO[bytes]]]:
    total_bytes = 0
    for count, header in enumerate(tar):
        if count > MAX_FILES:
            raise _bad(f"it holds more than {MAX_FILES} files")
        if not header.isreg() or header.issparse() or header.linkname:
            raise _bad(f"{header.name!r} is not a regular file")
        _check_path(header.name)
        total_bytes += header.size if count else 0
        if total_bytes > limit_bytes:
            raise _bad(f"it unpacks to more than {limit_bytes} bytes")
        content = tar.extractfile(header)
        if content is None:
            raise _bad(f"{header.name!r} has no content")
        yield header.name, header, content


def _check_path(path: str) -> None:
    parts = path.split("/")
    wrong = not path or "\0" in path or any(part in {"", ".", ".."} for part in parts)
    if wrong or is_too_long(path):
        raise _bad(f"{path[:100]!r} is not a plain relative name")


def _manifest(path: str, header: tarfile.TarInfo, content: IO[bytes]) -> list[dict[str, Any]]:
    if path != MANIFEST or header.size > _MAX_MANIFEST_BYTES:
        raise _bad("it has no manifest")
    try:
        manifest = json.loads(content.read())
        version, entries = manifest.get("version", _VERSION), list(manifest["files"])
        if version == _VERSION and all(_is_entry(entry) for entry in entries):
            return entries
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise _bad("its manifest is damaged") from problem
    if version != _VERSION:
        raise _bad(f"its manifest has the version {str(version)[:20]}, and only {_VERSION} is known")
    raise _bad("its manifest is damaged")


def _is_entry(entry: Mapping[str, Any]) -> bool:
    """Whether it names a file and what it holds; ``size_bytes`` may be left out."""
    return type(entry["path"]) is str and type(entry["sha256"]) is str and type(entry.get("size_bytes", 0)) is int


def _bad(why: str) -> RefusedInput:
    return RefusedInput("bad_bundle", f"The bundle can't be used: {why}.", hint="Submit the work again.")
