"""Deaths on one machine: the hub, the proxy, the supervisor; what runs for a user goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.hub_driver import Person, Platform, running_platform, wait_for


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running_platform(tmp_path_factory.mktemp("restart")) as platform:
        yield platform


@pytest.fixture(scope="module")
def ann(platform: Platform) -> Person:
    person = platform.login("ann")
    person.begin_server()
    assert person.open_lab().status_code == 200
    return person


def _kill(platform: Platform, *words: str) -> None:
    """Kill a program of the platform, and wait until another process has its place."""
    old = wait_for(" ".join(words), lambda: platform.pid_of(*words))
    os.kill(old, signal.SIGKILL)
    wait_for("its successor", lambda: platform.pid_of(*words) not in (None, old))


def test_a_user_server_outlives_its_hub(platform: Platform, ann: Person) -> None:
    server = ann.server_pid
    _kill(platform, "jupyterhub", "--config")
    wait_for("the hub", lambda: _status(ann, "/hub/home") == 200)

    assert ann.server_pid == server
    assert ann.api("GET", "users/ann").json()["servers"][""]["ready"] is True
    assert ann.open_lab().status_code == 200


def test_a_new_proxy_gets_its_routes_again(platform: Platform, ann: Person) -> None:
    server = ann.server_pid
    _kill(platform, "configurable-http-proxy")
    wait_for("JupyterLab through the new proxy", lambda: _status(ann, "/user/ann/lab") == 200)

    assert ann.server_pid == server


def test_a_page_says_that_a_part_is_starting(platform: Platform, ann: Person) -> None:
    hub = platform.pid_of("jupyterhub", "--config")
    assert hub
    os.kill(hub, signal.SIGSTOP)
    os.kill(hub, signal.SIGKILL)
    page = wait_for("the waiting page", lambda: _page_while_down(ann))

    assert "does not answer yet" in page
    wait_for("the hub", lambda: _status(ann, "/hub/home") == 200)


def test_a_killed_supervisor_leaves_only_the_servers_and_a_new_one_takes_them_up(
    platform: Platform, ann: Person
) -> None:
    server, ports = ann.server_pid, platform.site.ports
    assert platform.process
    platform.process.kill()
    platform.process.communicate()
    wait_for(
        "the end of proxy, service and hub", lambda: not platform.pid_of("--config") and not platform.pid_of("proxy")
    )
    lines = platform.start()

    assert lines[0].endswith(platform.url)
    assert platform.site.ports == ports
    assert ann.server_pid == server
    wait_for("JupyterLab", lambda: _status(ann, "/user/ann/lab") == 200)
    assert ann.server_pid == server


def test_a_dead_server_is_noticed_after_a_restart(platform: Platform, ann: Person) -> None:
    platform.stop(signal.SIGTERM)
    assert platform.processes() == []
    platform.start()

    assert "" not in ann.api("GET", "users/ann").json()["servers"]
    ann.begin_server()
    assert ann.open_lab().status_code == 200


def test_an_image_that_does_not_run_is_refused(platform: Platform, tmp_path: Path) -> None:
    platform.write_image("mute", python=str(_program(tmp_path / "python", "#!/bin/sh\nexit 3\n")))
    answer = platform.login("ben").start_server({"image": "mute"})

    assert answer.status_code == 400
    assert "does not answer" in answer.json()["message"]


def test_a_server_that_dies_at_start_shows_the_end_of_its_log(platform: Platform) -> None:
    config = platform.home / "homes/cleo/.local/share/atelier-lab/config/jupyter_server_config.py"
    config.parent.mkdir(parents=True)
    config.write_text("print('no good', flush=True)\nimport os\nos._exit(7)\n")
    answer = platform.login("cleo").start_server({"image": "pytorch"})

    assert answer.status_code == 500
    assert "ended with code 7" in answer.json()["message"]
    assert "no good" in answer.json()["message"]


def _program(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def _status(person: Person, path: str) -> int:
    try:
        return person.client.get(path).status_code
    except httpx.TransportError:
        return 0


def _page_while_down(person: Person) -> str | None:
    answer = person.client.get("/hub/home")
    return answer.text if answer.status_code == 503 else None
