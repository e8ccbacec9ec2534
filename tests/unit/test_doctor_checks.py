"""The doctor sees what is wrong, says what to do, and changes nothing."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from atelier.cli import checks, main
from atelier.client import Address, Client
from atelier.client.embedded import lock_holder
from atelier.settings import Catalog, Image, Settings
from tests.tiny_server import Answer, tiny_server

NOBODY = 65534


def test_a_settings_file_with_a_wrong_key_fails_with_line_and_nearest(tmp_path: Path) -> None:
    path = tmp_path / "atelier.yaml"
    path.write_text("accounts: one\nlimits:\n  runs_per_usr: 4\n")
    check, settings = checks.check_settings(path)
    assert check.status == "fail"
    assert f"{path}:3" in check.text
    assert "runs_per_user" in check.text
    assert settings == Settings()


def test_a_missing_settings_file_is_right(tmp_path: Path) -> None:
    assert checks.check_settings(tmp_path / "atelier.yaml")[0].status == "ok"


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A folder that this process may read, not write: as root it is for the while an account that owns nothing."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        is_root = os.getuid() == 0
        if is_root:
            os.setresuid(NOBODY, NOBODY, 0)
        try:
            yield folder
        finally:
            if is_root:
                os.setresuid(0, 0, 0)
            folder.chmod(0o755)


def test_it_says_by_what_runs_are_held(nobody: Path) -> None:
    """An account that owns nothing may make no control group, whatever this computer has."""
    assert "watched by their agents" in checks.check_limits(Settings()).text
    off = Settings.model_validate({"limits": {"control_groups": False}})
    assert "limits.control_groups" in checks.check_limits(off).text


def test_a_home_that_is_not_writable_fails(nobody: Path) -> None:
    assert checks.check_home(nobody / "below").status == "fail"
    assert checks.check_home(nobody).status == "fail"


def test_a_home_that_is_not_there_yet_is_right(tmp_path: Path) -> None:
    assert checks.check_home(tmp_path / "a" / "b").status == "ok"
    assert not (tmp_path / "a").exists()


def test_the_holder_of_a_lock_is_found_without_trying_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "service.lock"
    assert lock_holder(path) is None
    with path.open("a") as lock:
        assert lock_holder(path) is None
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert lock_holder(path) == os.getpid()
    assert lock_holder(path) is None


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    (tmp_path / "token").write_text("t")
    return tmp_path


def _nobody(home: Path) -> checks.Check:
    with Client.at(Address("http://127.0.0.1:9", "t")) as client:
        return checks.check_service(home, client, named=False)[0]


def test_no_service_is_right(home: Path) -> None:
    assert _nobody(home).status == "ok"


def test_a_note_of_a_dead_service_is_a_warning(home: Path) -> None:
    (home / "run" / "service.json").write_text(json.dumps({"pid": 1, "socket": "/nowhere"}))
    check = _nobody(home)
    assert check.status == "warn"
    assert "stale" in check.text


def test_a_service_that_holds_the_lock_and_is_silent_fails_with_its_process(home: Path) -> None:
    path = home / "run" / "service.lock"
    program = (
        "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); print(1, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        holder.stdout.readline()
        check = _nobody(home)
        holder.communicate("\n", timeout=10)
    assert check.status == "fail"
    assert str(holder.pid) in check.text


def test_a_service_that_answers_is_right(home: Path) -> None:
    answer = Answer(body=json.dumps({"user": {"name": "ada"}, "images": []}).encode())
    with tiny_server(lambda _: answer) as server, Client.at(Address(server.url, "t")) as client:
        check, offered = checks.check_service(home, client, named=True)
    assert check.status == "ok"
    assert "ada" in check.text
    assert offered == checks.Offered([], is_local=False)


def _image(folder: Path, script: str) -> Settings:
    python = folder / "python"
    python.write_text(script)
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    image = Image(name="torchy", framework="torch", version="2.13", python=str(python))
    return Settings(catalog=Catalog(images=(image,)))


@pytest.mark.parametrize(
    ("script", "status", "text"),
    [
        ("#!/bin/sh\necho '[\"2.13\"]'\n", "ok", "torch 2.13"),
        ("#!/bin/sh\necho '[\"2.12\"]'\n", "fail", "2.12"),
        ("#!/bin/sh\necho 'No package torch' >&2; exit 1\n", "fail", "No package torch"),
        ("#!/bin/sh\necho '[null, \"7\", null]'\n", "fail", "it has no package torch and no jupyterhub-atelier"),
        ("#!/nowhere/python\n", "fail", "does not work"),
    ],
)
def test_an_image_that_is_not_whole_fails(tmp_path: Path, script: str, status: str, text: str) -> None:
    (check,) = checks.check_images(_image(tmp_path, script), tmp_path)
    assert (check.name, check.status) == ("image torchy", status)
    assert text in check.text
    assert ("make env IMAGES=torchy" in check.todo) == (status == "fail")


def _entry(name: str, why: str | None = None) -> dict[str, object]:
    return {"name": name, "framework": "torch", "version": "2.13", "available": why is None, "why": why}


def test_the_service_has_the_last_word_on_images(tmp_path: Path) -> None:
    settings = _image(tmp_path, "#!/bin/sh\necho '[\"2.13\"]'\n")
    here = checks.Offered([_entry("gone", "It is not there.")], is_local=True)

    gone, unseen = checks.check_images(settings, tmp_path, here)
    assert (gone.name, gone.status, gone.text) == ("image gone", "fail", "It is not there.")
    assert (unseen.name, unseen.status) == ("image torchy", "warn")
    assert "does not offer it" in unseen.text


def test_images_of_a_service_elsewhere_are_what_it_says(tmp_path: Path) -> None:
    settings = _image(tmp_path, "#!/bin/sh\nexit 1\n")
    (check,) = checks.check_images(settings, tmp_path, checks.Offered([_entry("torchy")], is_local=False))
    assert (check.name, check.status, check.text) == ("image torchy", "ok", "torch 2.13, says the service")


def test_an_image_whose_interpreter_is_gone_fails(tmp_path: Path) -> None:
    settings = _image(tmp_path, "")
    (tmp_path / "python").unlink()
    (check,) = checks.check_images(settings, tmp_path)
    assert check.status == "fail"


@pytest.mark.filterwarnings("ignore:unclosed scandir:ResourceWarning")
def test_a_taken_port_is_a_warning_with_who_has_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (tmp_path / "ports.json").write_text(json.dumps({"public": port}))
        (check,) = checks.check_ports(tmp_path)
    assert check.status == "warn"
    assert str(os.getpid()) in check.text
    (check,) = checks.check_ports(tmp_path)
    assert check.status == "ok"


def test_the_whole_doctor(
    atelier_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ATELIER_URL", raising=False)
    code = main(["doctor", "--json"])
    told = json.loads(capsys.readouterr().out)
    names = [check["name"] for check in told["checks"]]
    wanted = ["settings", "accounts", "python", "home", "file system", "disk", "memory", "limits", "gpu", "service"]
    assert names[: len(wanted)] == wanted
    assert code == (0 if told["ok"] else 1)
    assert all(check["todo"] for check in told["checks"] if check["status"] == "fail")
    (atelier_home / "atelier.yaml").write_text("accounts: [\n")
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.startswith("fail  settings")
