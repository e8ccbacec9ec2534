"""Callers who mean harm, or whose program is broken, are refused within bounds: what they send, and how they read."""

from __future__ import annotations

from typing import Any

import pytest

from atelier.wire import page_token
from tests.service_driver import Service

# -- page tokens --------------------------------------------------------------------------------------------------
FORGED: dict[str, dict[str, Any]] = {
    "before the first year": {"at": "0001-01-01T00:00:00+05:00", "id": "r-aaaaaaaaaa"},
    "after the last year": {"at": "9999-12-31T23:59:59-05:00", "id": "r-aaaaaaaaaa"},
    "half a letter": {"at": "2026-01-01T00:00:00+00:00", "id": "r-\ud800"},
    "zero": {"at": "2026-01-01T00:00:00+00:00", "id": "r-\0"},
    "no moment": {"at": "soon", "id": "r-aaaaaaaaaa"},
    "no zone": {"at": "0001-01-01T00:00:00", "id": "r-aaaaaaaaaa"},
    "a number": {"at": 5, "id": 5},
    "nothing": {},
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_page_token_is_refused(service: Service, name: str) -> None:
    answer = service.get("/runs", params={"page": page_token(**FORGED[name])})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_page_token"), answer.text
