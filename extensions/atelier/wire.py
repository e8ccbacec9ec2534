"""What goes over HTTP: which status an error has and back, its body, page tokens, the wire's version."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from atelier.errors import (
    AtelierError,
    Conflict,
    InternalError,
    NotAllowed,
    NotFound,
    RefusedInput,
    Unavailable,
    Unreachable,
)

WIRE_VERSION = 1
"""Sent as ``Atelier-Wire`` with every request; a service answers its own and the one before."""

PREFIX = "/services/atelier"
API = f"{PREFIX}/api/v1"

STATUS: dict[type[AtelierError], int] = {
    RefusedInput: 422,
    NotFound: 404,
    NotAllowed: 403,
    Conflict: 409,
    Unavailable: 501,
    Unreachable: 503,
    InternalError: 500,
}
_SPECIAL_STATUS = {
    "unauthenticated": 401,
    "bundle_too_large": 413,
    "too_large": 413,
    "bad_page_token": 400,
    "disk_full": 507,
    "database_locked": 503,
    "database_unusable": 503,
}
_BY_STATUS = {status: kind for kind, status in STATUS.items()} | {
    400: RefusedInput,
    401: NotAllowed,
    413: RefusedInput,
    502: Unreachable,
    504: Unreachable,
}


def status_of(error: AtelierError) -> int:
    """HTTP status of an error."""
    return _SPECIAL_STATUS.get(error.code, STATUS[type(error)])


def error_body(error: AtelierError) -> dict[str, Any]:
    """The JSON body of an error: ``{"error": {"code", "message", "detail", "hint"}}``."""
    return {"error": {"code": error.code, "message": error.message, "detail": error.detail, "hint": error.hint}}


def error_from(status: int, body: Mapping[str, Any] | None) -> AtelierError:
    """The error that a service answered; ``body`` is its JSON or None when it was none (a proxy's page, say)."""
    kind = _BY_STATUS.get(status, InternalError)
    told = body.get("error") if isinstance(body, Mapping) else None
    if not isinstance(told, Mapping):
        return kind("http_error", f"The service answered with status {status}.", hint="Try again; look at its log.")
    detail = told.get("detail")
    return kind(
        str(told.get("code", "http_error")),
        str(told.get("message", "")),
        hint=str(told.get("hint", "")),
        detail=detail if isinstance(detail, Mapping) else {},
    )


def page_token(**position: str | int) -> str:
    """An opaque token that says where the next page begins."""
    return base64.urlsafe_b64encode(json.dumps(position, sort_keys=True).encode()).decode().rstrip("=")


def page_position(token: str) -> dict[str, Any]:
    """The position in a token made by `page_token`; RefusedInput ``bad_page_token`` for any other text."""
    try:
        position = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (binascii.Error, ValueError, RecursionError) as problem:
        raise _bad_token() from problem
    if not isinstance(position, dict):
        raise _bad_token()
    return position


def _bad_token() -> RefusedInput:
    return RefusedInput("bad_page_token", "The page token is not one of ours.", hint="Start at the first page.")
