"""Hub, proxy, user server and all of the platform are killed while a run works: it goes on, and its record is whole."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from atelier.local import processes
from tests.chaos.mortal import PATIENCE_S, Row
from tests.chaos.works import evidence, script
from tests.hub_driver import Person, Platform, running_platform, wait_for
from tests.service_driver import Service

PROGRAMS = {"hub": ("jupyterhub", "--config"), "proxy": ("configurable-http-proxy",), "service": ("atelier.service",)}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running_platform(tmp_path_factory.mktemp("chaos")) as platform:
        yield platform


@pytest.fixture(scope="module")
def ann(platform: Platform) -> Person:
    person = platform.login("ann")
    person.begin_server()
    return person


@pytest.fixture
def service(platform: Platform) -> Iterator[Service]:
    """The platform's own service, as its login user's programs see it."""
    service = Service(platform.home)
    yield service
    service.client.close()


def begun(service: Service, folder: Path, **spec: object) -> str:
    machine = service.client.catalog()["machines"][0]["name"]
    run_id = service.submit(script(folder, pause_s=2), image="pytorch", machine=machine, **spec)
    witness = folder / "witness"
    wait_for("the work", lambda: witness.exists() and "metric 0" in witness.read_text(), timeout_s=PATIENCE_S)
    return run_id


def check(service: Service, run_id: str, folder: Path, fault: str, began: float) -> list[str]:
    """How the attempts ended, once the record was found whole."""

    def is_final() -> bool:
        with contextlib.suppress(Exception):  # the service may be about to start again
            return service.run(run_id).state.is_final
        return False

    wait_for(f"the end of {run_id}", is_final, timeout_s=PATIENCE_S)
    found = evidence(service, run_id, folder)
    assert not (faults := list(found.faults())), faults
    Row.of(found.run, fault, f"{sum(map(len, found.points))} values, {len(found.files)} files", began).keep()
    return [str(attempt.state) for attempt in found.run.attempts]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_of_the_platform_is_killed(
    platform: Platform, ann: Person, service: Service, program: str, tmp_path: Path
) -> None:
    run_id = begun(service, tmp_path)
    began, old = time.monotonic(), platform.pid_of(*PROGRAMS[program])
    assert old is not None
    os.kill(old, signal.SIGKILL)
    wait_for("its successor", lambda: platform.pid_of(*PROGRAMS[program]) not in (None, old), timeout_s=PATIENCE_S)
    assert check(service, run_id, tmp_path, f"{program} of the platform killed", began) == ["succeeded"]


def test_a_user_server_is_killed(platform: Platform, ann: Person, service: Service, tmp_path: Path) -> None:
    run_id = begun(service, tmp_path)
    began = time.monotonic()
    os.kill(ann.server_pid, signal.SIGKILL)
    assert check(service, run_id, tmp_path, "user server killed", began) == ["succeeded"]


def test_the_whole_platform_is_killed_at_once(platform: Platform, service: Service, tmp_path: Path) -> None:
    run_id = begun(service, tmp_path, retries=1)
    began = time.monotonic()
    assert platform.process is not None
    for pid in [platform.process.pid, *platform.processes(), *service.of_attempt(run_id)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    platform.process.communicate()
    processes.end(platform.processes, patience_s=0)
    platform.start()
    ends = check(service, run_id, tmp_path, "all of the platform and the run killed at once, one retry", began)
    assert ends == ["lost", "succeeded"]
