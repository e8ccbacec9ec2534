"""An agent, its code, or who brings in what it left is killed at each step: nothing that was told is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.mortal import FULL, Mortal, mortal_over
from tests.chaos.walking import AGENT, BOOK, DELIVERY, LOSS, all_reached, name_of, parts, walk
from tests.chaos.works import book, script
from tests.service_driver import IMPATIENT

UNBEGUN = {"agent.lock.before"}
"""An agent that dies here has not begun: it is started again."""


@pytest.fixture(scope="module")
def place() -> Iterator[Mortal]:
    with mortal_over() as place:
        yield place


@pytest.mark.parametrize("points", parts(AGENT, 1))
def test_an_agent_or_its_code_dies_at_each_step_of_a_run(place: Mortal, tmp_path: Path, points: list[str]) -> None:
    place.order(*points)
    run_id = place.submit(script(tmp_path), key=points[0], machine="gpu", retries=1 if FULL else 0)
    run = place.check(run_id, tmp_path, name_of(points))
    all_reached(place)
    if FULL or run.state != "succeeded":
        died = [attempt for attempt in run.attempts if attempt.state != "succeeded"]
        assert [attempt.reason for attempt in died] in ([], ["agent_lost"], ["killed"]), run
    if FULL or set(points) <= UNBEGUN:
        assert run.state == "succeeded", (run.message, run.warnings)
    assert len(run.attempts) == 1 or not set(points) <= UNBEGUN


@pytest.mark.parametrize("points", parts(BOOK, 1))
def test_an_agent_of_a_notebook_dies_at_each_step(place: Mortal, tmp_path: Path, points: list[str]) -> None:
    place.order(*points)
    run_id = place.submit(book(tmp_path), key=points[0], machine="gpu", retries=1)
    run = place.check(run_id, tmp_path, name_of(points))
    all_reached(place)
    assert run.state == "succeeded", (run.message, run.warnings)


@pytest.mark.parametrize("points", parts(DELIVERY, 3))
def test_who_brings_in_what_a_dead_agent_left_dies_too(place: Mortal, tmp_path: Path, points: list[str]) -> None:
    """What the dead one had written of the end is told by the next: the run succeeded."""
    for run in walk(place, points, script, folder=tmp_path, before=("agent.result.after",)):
        assert (run.state, len(run.attempts)) == ("succeeded", 1), (run.message, run.warnings)


@pytest.mark.parametrize("points", parts(LOSS, 5))
def test_the_service_dies_when_it_gives_a_run_up(tmp_path: Path, points: list[str]) -> None:
    """Every agent dies before it can deliver: what it left is set aside, and the run is lost, once."""
    agents = ("agent.work.begun", "agent.deliver.asked", "agent.deliver.asked", "agent.deliver.asked")
    with mortal_over(IMPATIENT) as place:
        for run in walk(place, points, script, folder=tmp_path, before=agents):
            assert (run.state, run.reason) == ("lost", "agent_lost")
            aside = str(place.service.home / "run/undelivered" / run.id)
            assert any(aside in text for text in [run.message, *run.warnings]), run.warnings
