"""The service is killed at each step of a run's life: the run ends once, truthfully, with all that it had told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from atelier.crash_points import POINTS
from atelier.errors import NotFound
from tests.chaos import walking
from tests.chaos.mortal import Mortal, Row, mortal_over
from tests.chaos.walking import CANCEL, EXPIRY, MERGE, REMOVAL, SERVICE, SWEEP, all_reached, name_of, parts, walk
from tests.chaos.works import script
from tests.service_driver import write

SLEEP = "import time\nprint('begun', flush=True)\ntime.sleep(600)"


@pytest.fixture(scope="module")
def place() -> Iterator[Mortal]:
    with mortal_over() as place:
        yield place


def row(place: Mortal, run_id: str, fault: str) -> None:
    """Note how a run ended of which there is nothing to compare."""
    run = place.end(run_id)
    Row.of(run, fault, "nothing to compare", place.began).keep()


# -- a run from its submit to its record ---------------------------------------------------------------------------
@pytest.mark.parametrize("points", parts(SERVICE, 14))
def test_the_service_dies_at_each_step_of_a_run(place: Mortal, tmp_path: Path, points: list[str]) -> None:
    for run in walk(place, points, script, folder=tmp_path):
        assert (run.state, len(run.attempts)) == ("succeeded", 1), (run.message, run.warnings)


@pytest.mark.parametrize("points", parts(MERGE, 3))
def test_the_service_dies_while_it_merges_what_came_in_pieces(place: Mortal, tmp_path: Path, points: list[str]) -> None:
    lines = "import time\nfor n in range(240):\n    print(f'{n:06d}', flush=True)\n    time.sleep(0.1)\n"
    place.order(*points)
    run_id = place.submit(write(tmp_path, train__py=lines), key=points[0])
    run = place.end(run_id)
    all_reached(place)
    assert run.state == "succeeded"
    assert place.service.log(run_id) == "".join(f"{n:06d}\n" for n in range(240))
    Row.of(run, name_of(points), "240 lines, each once", place.began).keep()


# -- other ends ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("points", parts(CANCEL, 2))
def test_the_service_dies_at_a_cancel(place: Mortal, tmp_path: Path, points: list[str]) -> None:
    run_id = place.submit(write(tmp_path, train__py=SLEEP), key=points[0])
    place.until(lambda: "begun" in place.service.log(run_id), "the work to begin")
    place.order(*points)
    place.until(lambda: place.service.client.cancel(run_id, now=True), "the cancel to be taken")
    run = place.end(run_id)
    all_reached(place)
    assert (run.state, run.reason) == ("cancelled", "cancelled_by_user")
    row(place, run_id, name_of(points))


@pytest.mark.parametrize("points", parts(EXPIRY, 2))
def test_the_service_dies_when_a_run_has_waited_too_long(place: Mortal, tmp_path: Path, points: list[str]) -> None:
    first = place.submit(write(tmp_path, train__py=SLEEP), key=f"before {points[0]}", machine="gpu")
    place.until(lambda: "begun" in place.service.log(first), "the GPU to be in use")
    place.order(*points)
    run_id = place.submit(write(tmp_path, train__py="1"), key=points[0], machine="gpu", queue_timeout_s=0.5)
    run = place.end(run_id)
    all_reached(place)
    assert (run.state, run.reason) == ("timed_out", "queue_deadline")
    row(place, run_id, name_of(points))
    place.service.client.cancel(first, now=True)
    assert place.end(first).state == "cancelled"


@pytest.mark.parametrize("points", parts(REMOVAL, 7))
def test_the_service_dies_at_a_removal(place: Mortal, tmp_path: Path, points: list[str]) -> None:
    """The run is gone with all that it left, also when its removal was cut off; the housekeeper sweeps at a start."""
    place.order()
    ids = [place.submit(write(tmp_path, train__py="1"), key=f"{points[0]} {number}") for number in range(len(points))]
    for run_id in ids:
        place.end(run_id)
    place.order(*points)
    for run_id in ids:
        place.until(lambda one=run_id: is_gone(place, one), f"{run_id} to be removed")
    if place.left:
        place.service.kill()
    all_reached(place)
    place.settle()
    for run_id in ids:
        folder = place.service.home / "blobs/runs" / run_id
        place.until(lambda one=folder: not list(one.rglob("*.json")), "the last blob of the run to go")


def is_gone(place: Mortal, run_id: str) -> bool:
    """Remove a run, unless it is removed."""
    try:
        place.service.client.remove(run_id)
    except NotFound:
        return True
    return False


@pytest.mark.parametrize("points", parts(SWEEP, 2))
def test_the_service_dies_while_it_sweeps_at_its_start(place: Mortal, tmp_path: Path, points: list[str]) -> None:
    run_id = place.submit(script(tmp_path), key=points[0], machine="gpu")
    place.end(run_id)
    place.settle()
    place.service.kill()
    folder = place.service.attempt_folder(run_id)
    folder.mkdir(parents=True)
    (folder / "orders.json").write_text("{}")
    place.order(*points)
    run = place.check(run_id, tmp_path, name_of(points))
    all_reached(place)
    assert run.state == "succeeded"
    place.until(lambda: not folder.exists(), "the leftover to go")


def test_every_place_is_walked_through() -> None:
    walked = [*SERVICE, *walking.AGENT, *walking.OTHERS]
    assert sorted(walked) == sorted(POINTS)
