"""Both examples, killed in the middle: the attempt that goes on ends with the numbers of a run that was left alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from atelier.records import Run
from tests.cli_driver import wait_for
from tests.conftest import image_python
from tests.service_driver import Service, command_of, service_over

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
SETTINGS = """
catalog:
  images: [{{name: {image}, python: {python}}}]
  machines: [{{name: small, cpu: 1, memory: 3Gi}}]
"""

pytestmark = pytest.mark.timeout(400)


def kill_kernel(service: Service, run_id: str) -> None:
    """End the process in which the cells run."""
    (kernel,) = [pid for pid in service.of_attempt(run_id) if b"kernel_launcher.py" in command_of(pid)]
    os.kill(kernel, signal.SIGKILL)


def kill_agent(service: Service, run_id: str) -> None:
    """End the process that supervises the run."""
    (agent,) = service.agents(run_id)
    os.kill(agent, signal.SIGKILL)


@dataclass(frozen=True)
class Example:
    """A notebook's image, parameters that make it short, what is killed, and the reason that is told of it."""

    image: str
    params: dict[str, Any]
    kill: Callable[[Service, str], None]
    reason: str


EXAMPLES = {
    "tensorflow_image_cnn": Example(
        "tensorflow", {"epochs": 4, "batch_size": 32, "formats": ["savedmodel"]}, kill_kernel, "killed"
    ),
    "pytorch_text_lstm": Example(
        "pytorch", {"epochs": 4, "hidden_size": 24, "formats": ["pt2"]}, kill_agent, "agent_lost"
    ),
}


@pytest.fixture(params=list(EXAMPLES))
def name(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def service(name: str, tmp_path: Path) -> Iterator[Service]:
    """A service that has the example's image; what a framework leaves in the temporary folder goes with the test's."""
    image = EXAMPLES[name].image
    settings = SETTINGS.format(image=image, python=image_python(image))
    with service_over(settings=settings, more={"TMPDIR": str(tmp_path)}) as place:
        yield place


def told(service: Service, run: Run) -> dict[str, list[list[Any]]]:
    """What a run logged, without how it used the machine: name → step and value of every point."""
    names = [name for name in service.client.metrics(run.id)["names"] if not name.startswith("system/")]
    return {name: [point[:2] for point in service.client.metrics(run.id, name=name)["points"]] for name in names}


def parity(service: Service, run: Run) -> Any:
    """What is told of the run's model: its metrics, and how each format differs from it."""
    (card,) = [version["card"] for version in service.get("/models").json()["items"] if version["run"] == run.id]
    return card["metrics"], {name: report["batches"] for name, report in card["formats"].items()}


def test_a_run_that_was_killed_in_the_middle_ends_with_the_same_numbers(service: Service, name: str) -> None:
    example = EXAMPLES[name]
    asked: dict[str, Any] = {"image": example.image, "machine": "small"}
    work = NOTEBOOKS / f"{name}.ipynb"
    killed = service.submit(work, example.params | {"model_name": "killed"}, retries=1, **asked)
    service.wait(killed, "running", patience_s=60)
    checkpoints = service.attempt_folder(killed) / "run/spool/checkpoints"
    wait_for((checkpoints / "step-00000002").exists, "the second epoch's checkpoint", timeout_s=150)
    example.kill(service, killed)
    whole = service.submit(work, example.params | {"model_name": "whole"}, **asked)
    again, once = (service.wait(run_id, "succeeded", patience_s=200) for run_id in (killed, whole))
    assert [attempt.reason for attempt in again.attempts] == [example.reason, None]
    assert len(once.attempts) == 1
    wanted = told(service, once)
    assert [step for step, _ in wanted["loss"]] == [1, 2, 3, 4]
    assert told(service, again) == wanted, "each step once, with the same values to the last bit"
    assert again.metrics == once.metrics
    assert parity(service, again) == parity(service, once)
