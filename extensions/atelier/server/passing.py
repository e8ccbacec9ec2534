"""Which requests pass through to the run service, and what of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote_to_bytes

from atelier.errors import NotFound, RefusedInput

ASKED_HEADERS = frozenset(
    {
        "accept",
        "content-type",
        "content-length",
        "idempotency-key",
        "if-none-match",
        "if-range",
        "range",
    }
)
"""What goes to the service. No cookie, no authorization, no forwarding header does."""

TOLD_HEADERS = frozenset(
    {
        "content-type",
        "content-length",
        "content-disposition",
        "content-range",
        "accept-ranges",
        "etag",
        "last-modified",
        "cache-control",
        "retry-after",
        "atelier-wire",
    }
)
"""What comes back. No cookie, no redirect, no permission for other origins does."""

SMALL_BODY_BYTES = 8 * 2**20
_LARGE_BODIES = re.compile(r"(bundles|uploads)/[0-9a-f]{64}")
_RESOURCE = re.compile(r"[a-z]{1,32}")
_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}")
_PLAIN = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@/-]*")
_STREAM = re.compile(r"(?:runs/[^/]+/)?events")
_INLINE_TYPES = re.compile(r"application/(?:[a-z0-9.+-]*\+)?json")


def checked_path(raw: str) -> str:
    """The percent-encoded path below ``/api/v1`` as it goes to the service.

    Raises
    ------
    RefusedInput
        ``bad_path``: a step up, an encoded slash, a NUL or a wrong escape.
    NotFound
        ``no_such_endpoint``: an event stream; a page has one WebSocket for these.
    """
    if not _PLAIN.fullmatch(_ENCODED.sub("", raw)) or not _RESOURCE.fullmatch(raw.split("/", 1)[0]):
        raise _bad_path(raw)
    for part in raw.split("/"):
        plain = unquote_to_bytes(part)
        if plain in {b"", b".", b".."} or any(byte in plain for byte in b"/\\\0"):
            raise _bad_path(raw)
    if _STREAM.fullmatch(raw):
        raise NotFound("no_such_endpoint", "Event streams are not passed on.", hint="Use the WebSocket atelier/events.")
    return "/" + raw


def body_limit_bytes(path: str, large_bytes: int) -> int:
    """How long a request's body may be: bundles and model files are large, all else is JSON."""
    return large_bytes if _LARGE_BODIES.fullmatch(path.lstrip("/")) else SMALL_BODY_BYTES


def asked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of the page's request that the service gets."""
    kept = {name: value for name, value in headers.items() if name.lower() in ASKED_HEADERS}
    return {**kept, "Accept-Encoding": "identity"}


def told_headers(headers: Iterable[tuple[str, str]], *, status: int) -> dict[str, str]:
    """The headers of the service's answer that the page gets.

    A file that a user or a run made is never shown inline on this origin, whatever it says it is.
    """
    kept = {name.title(): value for name, value in headers if name.lower() in TOLD_HEADERS}
    kind = kept.get("Content-Type", "application/octet-stream").split(";")[0].strip().lower()
    inline = _INLINE_TYPES.fullmatch(kind) is not None or status in {204, 304}
    if not inline and not kept.get("Content-Disposition", "").startswith("attachment"):
        kept["Content-Disposition"] = "attachment"
    kept.setdefault("Content-Type", "application/octet-stream")
    kept.setdefault("Cache-Control", "no-store")
    return kept


def _bad_path(raw: str) -> RefusedInput:
    return RefusedInput(
        "bad_path", f"{raw[:200]!r} is not a path of the run service.", hint="Use ids and names as listed."
    )
