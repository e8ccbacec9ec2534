"""The suite of the store, over whichever database."""

from __future__ import annotations

import pytest

from atelier.service.store import Store
from atelier.testing.store_files import FilesSuite
from atelier.testing.store_keeping import KeepingSuite
from atelier.testing.store_lifecycle import LifecycleSuite
from atelier.testing.store_order import OrderSuite
from atelier.testing.store_queue import QueueSuite
from atelier.testing.store_runs import RunsSuite
from atelier.testing.store_streams import StreamsSuite
from atelier.testing.store_time import TimeSuite


class StoreContract(
    RunsSuite, LifecycleSuite, QueueSuite, OrderSuite, StreamsSuite, FilesSuite, KeepingSuite, TimeSuite
):
    """What the store promises. Override `store` with a fixture that gives an empty one."""

    @pytest.fixture
    def store(self) -> Store:
        """An empty store."""
        raise NotImplementedError
