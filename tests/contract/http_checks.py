"""What schemathesis is to know of this service: it loads this file by itself, in a process of its own."""

from __future__ import annotations

import json
import os
from typing import Any

import schemathesis
from schemathesis import Case, HookContext
from schemathesis.checks import CheckContext
from schemathesis.core.transport import Response

SCHEMA_REFUSALS = frozenset({"bad_request", "http_error"})


@schemathesis.hook
def before_load_schema(context: HookContext, raw_schema: dict[str, Any]) -> None:
    """Name what there is in bodies (``ATELIER_FUZZ_BODIES``: schema → property → what is more to be true of it).

    Else no run would ever be made: its bundle has to be there, its machine known, its work in the bundle.
    """
    schemas = raw_schema["components"]["schemas"]
    for name, properties in json.loads(os.environ["ATELIER_FUZZ_BODIES"]).items():
        for field, more in properties.items():
            schemas[name]["properties"][field] = more


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
