"""Checks of schemathesis' that know this service: it loads this file by itself, in a process of its own."""

from __future__ import annotations

import schemathesis
from schemathesis import Case
from schemathesis.checks import CheckContext
from schemathesis.core.transport import Response

SCHEMA_REFUSALS = frozenset({"bad_request", "http_error"})


@schemathesis.check
def refused_for_what_it_means(ctx: CheckContext, response: Response, case: Case) -> None:
    """What fits the description may be refused for what it asks, but not as what does not fit."""
    if case.meta is None or not case.meta.generation.mode.is_positive or not 400 <= response.status_code < 500:
        return
    code = response.json()["error"]["code"] if response.content else ""
    assert code not in SCHEMA_REFUSALS, f"{code}: {response.text}"


@schemathesis.check
def errors_are_told(ctx: CheckContext, response: Response, case: Case) -> None:
    """An error has a code and words, whoever makes it: also where the description knows of none."""
    if response.status_code >= 400 and case.method != "HEAD":
        told = response.json()["error"]
        assert set(told) == {"code", "message", "detail", "hint"}, response.text
        assert told["code"], response.text
        assert told["message"], response.text
