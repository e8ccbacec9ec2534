"""A step that hangs for one run holds up no other run, and is followed by no other step for its own."""

from __future__ import annotations

import asyncio
import logging

import pytest

from atelier.service.steps import Steps


def test_a_step_that_hangs_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    taken: list[str] = []

    async def passes() -> None:
        gate, steps = asyncio.Event(), Steps(patience_s=0.01)

        async def hang() -> None:
            await gate.wait()
            taken.append("the one that hung")

        async def go(name: str) -> None:
            taken.append(name)

        await steps.take("r-one", hang(), "watching r-one")
        await steps.take("r-two", go("another run's"), "watching r-two")
        await steps.take("r-one", go("a second one"), "watching r-one")
        gate.set()
        while "the one that hung" not in taken:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        await steps.take("r-one", go("the next one"), "watching r-one")

    with caplog.at_level(logging.ERROR):
        asyncio.run(asyncio.wait_for(passes(), 20))
    assert taken == ["another run's", "the one that hung", "the next one"]
    assert [record.getMessage() for record in caplog.records] == [
        "watching r-one is not done after 0.01 s; the other runs go on without it."
    ]


def test_a_pass_that_is_cancelled_takes_its_step_with_it() -> None:
    async def passes() -> None:
        ended = asyncio.Event()

        async def hang() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

        taking = asyncio.create_task(Steps().take("r-one", hang(), "watching r-one"))
        await asyncio.sleep(0.01)
        taking.cancel()
        await asyncio.wait_for(ended.wait(), 20)

    asyncio.run(passes())
