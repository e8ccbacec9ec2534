"""Bytes of blobs as answers: never rendered by a browser on our origin, resumable by range."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import StreamingResponse

from atelier.errors import RefusedInput
from atelier.storage import BlobStore

PART_BYTES = 1 << 20
_NUMBER = re.compile(r"[0-9]{1,18}")


def safe_headers(name: str) -> dict[str, str]:
    """Headers under which a user's file can do no harm: an attachment, not sniffed, sandboxed."""
    return {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }


def send_blob(
    request: Request, blobs: BlobStore, key: str, name: str, *, media: str = "application/octet-stream"
) -> StreamingResponse:
    """A blob as a download; answers ``Range: bytes=N-`` and ``bytes=N-M``."""
    size = blobs.size_bytes(key)
    start, end = _range(request.headers.get("range"), size)
    headers = safe_headers(name) | {"Accept-Ranges": "bytes", "Content-Length": str(end - start)}
    status = 200
    if (start, end) != (0, size):
        status, headers["Content-Range"] = 206, f"bytes {start}-{end - 1}/{size}"
    stream = blobs.open(key)  # before anything is promised: it may go at any time
    return StreamingResponse(_parts(stream, start, end), status_code=status, headers=headers, media_type=media)


def _parts(stream: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    with stream:
        stream.seek(start)
        while start < end and (part := stream.read(min(PART_BYTES, end - start))):
            start += len(part)
            yield part


def _range(header: str | None, size: int) -> tuple[int, int]:
    if header is None or not header.startswith("bytes=") or "," in header:
        return 0, size
    first, _, last = header.removeprefix("bytes=").partition("-")
    if not _NUMBER.fullmatch(first) or (last and not _NUMBER.fullmatch(last)):
        return 0, size
    start, end = int(first), min(int(last) + 1 if last else size, size)
    if start >= end:
        raise RefusedInput(
            "bad_range", f"The file has {size} bytes; {header!r} is outside.", hint="Ask for a smaller range."
        )
    return start, end
