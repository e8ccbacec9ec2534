"""The reconciler asks for a claim when one may succeed, and not in each pass."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from atelier.service import known
from atelier.service.handlers.context import Service
from atelier.service.serving import Plan, _Idle, assemble
from atelier.testing.samples import GPU, queued
from atelier.testing.store_order import statements
from tests.service_driver import SETTINGS


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """The parts of a service, none of which goes by itself, with a run that waits for what there isn't."""
    (tmp_path / "atelier.yaml").write_text(SETTINGS)
    made = assemble(Plan(tmp_path), tmp_path / "service.sock", "token", _Idle(time.monotonic()))
    queued(made.store, gpus=1, accelerators={GPU: 1000})
    passes(made)
    yield made
    made.store.close()


def passes(service: Service) -> int:
    """How many transactions that write a pass takes."""
    with statements(service.store) as seen:
        asyncio.run(service.reconciler.step())
    return seen.count("BEGIN IMMEDIATE")


def test_what_was_refused_is_not_asked_for_again_while_nothing_changes(service: Service) -> None:
    assert [passes(service) for _ in range(3)] == [0, 0, 0]


def test_a_change_is_looked_at_at_once(service: Service) -> None:
    second = queued(service.store, accelerators={GPU: 1000})
    assert passes(service) > 0
    assert passes(service) == 0
    service.store.runs.expire(second)
    assert passes(service) > 0


def test_it_is_looked_again_after_a_while(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time alone may put a run that waits for too long before the others."""
    now = time.monotonic()
    monkeypatch.setattr(known.time, "monotonic", lambda: now + known.LOOK_AGAIN_S + 1)
    assert passes(service) > 0
