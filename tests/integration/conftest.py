"""One run service for the tests that don't need their own, and proof that nothing of any of them is left."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.service_driver import Service, left_behind, service_over

GPUS = ("GPU-11111111-aaaa", "GPU-22222222-bbbb")


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_of_services() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 10
    while (left := left_behind()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, left


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    """A service without limits, with two declared GPUs."""
    with service_over(more={"ATELIER_TEST_GPUS": ",".join(GPUS)}) as place:
        yield place
