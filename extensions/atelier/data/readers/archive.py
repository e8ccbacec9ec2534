"""Files with files in them: contents of a ZIP, the unpacked head of a gzip, and pickles, which are never opened."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

from atelier.data.readers.subject import BLOCK_BYTES, Plan, Shown, Subject
from atelier.errors import RefusedInput
from atelier.quantities import format_bytes

_MAX_MEMBERS = 500
_END_BYTES = 66 * 1024
_NEVER_LOADED = "A pickle runs code when it is loaded, so a preview never does. Load it only if you trust its writer."


def plan_zip(subject: Subject) -> Plan:
    """The table of contents at the file's end; no member is unpacked."""
    reader = subject.reader
    start = max(0, reader.size_bytes - _END_BYTES)
    reader.prefetch([(start, reader.size_bytes - start)])
    tail = reader.at(start, reader.size_bytes - start)
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) < end + 22:
        raise RefusedInput(
            "broken_file", "The ZIP file has no end: it was cut, or is still being written.", hint="Write it again."
        )
    length = min(int(struct.unpack("<I", tail[end + 12 : end + 16])[0]), reader.size_bytes)
    return Plan(length, "the table of contents", lambda: _read_zip(subject))


def _read_zip(subject: Subject) -> Shown:
    try:
        with zipfile.ZipFile(io.BufferedReader(_Unclosed(subject))) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, OSError, EOFError) as problem:
        raise RefusedInput(
            "broken_file", f"The ZIP file is broken: {str(problem)[:200]}", hint="Write it again."
        ) from problem
    columns = [{"name": "file", "type": "text"}, {"name": "bytes", "type": "int"}, {"name": "packed", "type": "int"}]
    rows = [[_safe(member.filename), member.file_size, member.compress_size] for member in members[:_MAX_MEMBERS]]
    facts = {"files": len(members), "unpacked": format_bytes(sum(member.file_size for member in members))}
    return Shown(columns=columns, rows=rows, total_rows=len(members), truncated=len(members) > len(rows), facts=facts)


def _safe(name: str) -> str:
    return name[:300].encode(errors="replace").decode()


class _Unclosed(io.RawIOBase):
    """The subject's reader for a library that closes what it was given."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self._reader = subject.reader
        self._reader.seek(0)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return self._reader.readinto(buffer)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._reader.seek(offset, whence)

    def tell(self) -> int:
        return self._reader.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def plan_pickle(subject: Subject) -> Plan:
    """Nothing, or the table of contents where the file is a ZIP as ``torch.save`` writes it."""
    if subject.reader.at(0, 4) != b"PK\x03\x04":
        return Plan(0, "a pickle is not loaded", lambda: Shown(note=_NEVER_LOADED))
    inner = plan_zip(subject)

    def read() -> Shown:
        shown = inner.read()
        shown.note = _NEVER_LOADED
        return shown

    return Plan(inner.bytes_to_read, inner.why, read)


def unpacked_head(packed: bytes) -> tuple[bytes, bool]:
    """The first MiB of what a gzip block unpacks to, and whether there is more.

    Raises
    ------
    RefusedInput
        ``broken_file``: it is not gzip.
    """
    unpacker = zlib.decompressobj(wbits=31)
    try:
        content = unpacker.decompress(packed, BLOCK_BYTES)
    except zlib.error as problem:
        raise RefusedInput("broken_file", f"The gzip file is broken: {problem}", hint="Write it again.") from problem
    return content, not unpacker.eof or bool(unpacker.unused_data)
