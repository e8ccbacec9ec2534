"""Proof that nothing of any service is left when a process of tests ends."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator

import pytest

from tests.chaos.starter import the_starter
from tests.service_driver import left_behind


def pytest_configure(config: pytest.Config) -> None:
    """A client whose service has just died leaves its socket to the garbage collector: httpcore closes it nowhere."""
    config.addinivalue_line("filterwarnings", "ignore:unclosed <socket:ResourceWarning")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test here waits for many starts of a service, as long as each may take."""
    for item in items:
        item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_of_services() -> Iterator[None]:
    yield
    if the_starter.cache_info().currsize:
        the_starter().close()
    gc.collect()  # the sockets that were left, while what they say of it is not heard
    deadline = time.monotonic() + 10
    while (left := left_behind()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, left
