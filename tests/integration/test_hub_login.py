"""Logging in at a real hub behind its real proxy."""

from __future__ import annotations

import fcntl
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.hub_driver import Platform, running_platform


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running_platform(tmp_path_factory.mktemp("login")) as platform:
        yield platform


def test_login_page_says_what_a_name_is_worth(platform: Platform) -> None:
    page = httpx.get(f"{platform.url}/hub/login").text

    assert "Names keep work apart here, they don't protect it." in page
    assert "their code can read" in page
    assert 'value="ann"' in page


def test_the_password_opens_any_name(platform: Platform) -> None:
    assert platform.login("ann").is_in
    assert platform.login("ben").is_in


def test_a_wrong_password_opens_nothing(platform: Platform) -> None:
    person = platform.login("ann", password="wrong")

    assert person.login_status == 403
    assert person.client.get("/hub/home").url.path == "/hub/login"


def test_the_common_password_does_not_open_the_administration(platform: Platform) -> None:
    assert platform.login("admin").login_status == 403
    admin = platform.login("admin", password=platform.site.secret("admin_password"))
    assert admin.api("GET", "users").status_code == 200
    assert platform.login("ann").api("GET", "users").status_code == 403


def test_secrets_are_readable_by_their_owner_only(platform: Platform) -> None:
    folder = platform.home / "secrets"

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in folder.iterdir()} == {
        path.name: "0o600" for path in folder.iterdir()
    }


def test_the_hub_answers_on_loopback_only(platform: Platform) -> None:
    listening = [
        line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"
    ]
    ports = platform.site.ports
    ours = [
        address for address in listening if int(address.split(":")[1], 16) in (ports.public, ports.hub, ports.proxy_api)
    ]

    assert len(ours) == 3
    assert {address.split(":")[0] for address in ours} == {"0100007F"}


@pytest.mark.timeout(90)
def test_login_and_server_do_not_need_the_run_service(tmp_path: Path) -> None:
    (tmp_path / "atelier-home/run").mkdir(parents=True)
    with (tmp_path / "atelier-home/run/service.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a service that can't have its home does not start
        with running_platform(tmp_path) as platform:
            person = platform.login("ann")
            person.begin_server()
            assert person.open_lab().status_code == 200
