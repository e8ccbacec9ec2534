"""Parts of a service that don't go by themselves; failures inside the suites that ship are shown as the tests' own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from atelier.service.handlers.context import Service

pytest.register_assert_rewrite("atelier.testing", "tests.contract.writing_runs")

from tests.contract.writing_runs import service_of  # noqa: E402 - its assertions are to be rewritten, too


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def service(home: Path) -> Iterator[Service]:
    made = service_of(home)
    yield made
    made.store.close()
