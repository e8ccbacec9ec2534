"""What ``openapi.json`` says besides what FastAPI knows by itself: who calls, errors, and bytes that are no JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import Response
from fastapi.security import APIKeyHeader
from pydantic import Field

from atelier.records import Record


class ErrorWords(Record):
    """What went wrong, for programs and for people."""

    code: str = Field(description="stable; docs/errors.md lists them")
    message: str
    detail: dict[str, Any]
    hint: str = Field(description="what to do next; may be empty")


class ErrorAnswer(Record):
    """The body of every error."""

    error: ErrorWords


ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "The request can't be taken as it is"},
    "5XX": {"model": ErrorAnswer, "description": "The service can't do it now: its disk, its database, or a defect"},
}

USER = APIKeyHeader(
    name="Authorization",
    scheme_name="user",
    description="`token <token>`: a hub's or a service's own",
    auto_error=False,
)
AGENT = APIKeyHeader(
    name="Authorization", scheme_name="agent", description="`run <token>`: that of an attempt", auto_error=False
)

TAKES_BYTES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
"""``openapi_extra`` of a handler that reads its body by itself."""


def sends(media: str, *, ranges: bool = True) -> Mapping[str, Any]:
    """Arguments of a route that answers with bytes of a media type, with ``ranges`` also with a part of them."""
    content = {media: {"schema": {"type": "string", "format": "binary"}}}
    answers: dict[int | str, dict[str, Any]] = {200: {"content": content}}
    if ranges:
        answers[206] = {"description": "The bytes that `Range` asks for", "content": content}
    return {"response_class": Response, "response_model": None, "responses": answers}
