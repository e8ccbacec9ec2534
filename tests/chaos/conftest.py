"""Proof that nothing of any service is left when a process of tests ends."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.service_driver import left_behind


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_of_services() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 10
    while (left := left_behind()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, left
