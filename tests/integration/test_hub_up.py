"""`atelier up`: what it says, what it refuses, what it leaves."""

from __future__ import annotations

import http.server
import json
import os
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub_driver import Person, Platform, running_platform, wait_for


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with running_platform(tmp_path) as platform:
        yield platform


def _refusal(process: subprocess.Popen[str]) -> str:
    """What an `atelier up` that can't start says: nothing on stdout, one line on stderr."""
    out, told = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    assert told.count("\n") == 1, told
    return told.strip()


def test_three_lines_and_the_second_start_is_quick(tmp_path: Path) -> None:
    with running_platform(tmp_path) as platform:
        password = (platform.home / "secrets/password").read_text()
        platform.stop()
        began = time.monotonic()
        lines = platform.start()
        took_s = time.monotonic() - began

        assert lines == [
            f"Atelier   {platform.url}",
            "User      ann",
            f"Password  in {platform.home}/secrets/password",
        ]
        assert (platform.home / "secrets/password").read_text() == password
        assert platform.login("ann").is_in
        assert took_s < 15


def test_ctrl_c_leaves_nothing_but_runs(platform: Platform) -> None:
    person = platform.login("ann")
    person.begin_server({})
    environ = person.server_environ()
    kernel = subprocess.Popen(["sleep", "1000"], env=environ, start_new_session=True)
    run = subprocess.Popen(["sleep", "1000"], env={"ATELIER_RUN_ID": "r-aaaaaaaaaa"}, start_new_session=True)
    try:
        status, told = platform.stop()

        assert status == 0
        assert told == "Stopping; runs go on.\n"
        assert platform.processes() == []
        assert wait_for("the kernel's end", lambda: kernel.poll() is not None)
        assert run.poll() is None
    finally:
        run.kill()
        run.wait()


@pytest.mark.timeout(150)
def test_a_run_goes_on_while_the_platform_is_stopped(platform: Platform) -> None:
    person = platform.login("ann")
    person.begin_server()
    work = platform.user_home / "work.py"
    work.write_text(
        "import time\nfor second in range(12):\n    print('second', second, flush=True)\n    time.sleep(1)\n"
    )
    run = _atelier(person, "submit", str(work))["id"]
    wait_for("the run's first line", lambda: "second 1" in _atelier(person, "logs", run)["text"])
    platform.stop()

    assert [command for command in _commands(platform) if "work.py" not in command] == []
    assert len(_commands(platform)) > 0
    platform.start()
    person = platform.login("ann")
    person.begin_server()
    wait_for("the run's end", lambda: _atelier(person, "show", run)["state"] == "succeeded", timeout_s=40)
    assert _atelier(person, "logs", run)["text"].split() == [word for i in range(12) for word in ("second", str(i))]


def _atelier(person: Person, *words: str) -> dict[str, Any]:
    """A command of a terminal in the person's server, as the document that it prints."""
    command = ["python", "-m", "atelier", *words, "--json"]
    done = subprocess.run(command, env=person.server_environ(), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _commands(platform: Platform) -> list[str]:
    lines = (Path(f"/proc/{pid}/cmdline") for pid in platform.processes())
    return [line.read_bytes().replace(b"\0", b" ").decode() for line in lines if line.exists()]


def test_a_second_up_on_the_same_home_names_the_first(platform: Platform) -> None:
    assert platform.process
    told = _refusal(platform.popen(port=platform.port + 1))

    assert f"already runs with the home {platform.home} at {platform.url} (process {platform.process.pid})" in told
    assert "ATELIER_HOME=" in told
    assert platform.login("ann").is_in


def test_a_taken_port_is_named_with_its_holder(tmp_path: Path) -> None:
    platform = Platform(tmp_path)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", platform.port), http.server.BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        told = _refusal(platform.popen())
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

    assert told.startswith(f"Port {platform.port} is taken by process {os.getpid()} (")
    assert f"PORT={platform.port + 1}" in told


def test_it_refuses_to_be_reached_from_outside(tmp_path: Path) -> None:
    told = _refusal(Platform(tmp_path).popen(ATELIER_HOST="0.0.0.0"))

    assert told.startswith(
        "ATELIER_HOST=0.0.0.0: Atelier on one account is one trust domain and answers on 127.0.0.1 only."
    )
    assert "ssh -L" in told


def test_a_home_that_is_no_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told = _refusal(Platform(tmp_path).popen(ATELIER_HOME=str(tmp_path / "file" / "home")))

    assert "file/home can't be used (Not a directory)" in told


def test_a_home_on_a_read_only_disk_is_one_line(tmp_path: Path) -> None:
    told = _refusal(Platform(tmp_path).popen(ATELIER_HOME="/proc/atelier"))

    assert told.startswith("/proc/atelier can't be ")
    assert "ATELIER_HOME=" in told


def test_wrong_settings_are_refused_with_the_line(tmp_path: Path) -> None:
    platform = Platform(tmp_path)
    platform.environ()
    (platform.home / "atelier.yaml").write_text("limits:\n  runs_per_usr: 4\n")
    told = _refusal(platform.popen())

    assert f"{platform.home}/atelier.yaml:2: limits.runs_per_usr: unknown key; did you mean 'runs_per_user'?" in told


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("accounts: system\n", "says 'accounts: system'. 'atelier up' knows only 'accounts: one'."),
        (
            "backend: {kubernetes: {namespace: x}}\n",
            "says 'backend: kubernetes'. 'atelier up' knows only 'backend: local'.",
        ),
    ],
)
def test_settings_it_cannot_honour_are_refused(tmp_path: Path, text: str, words: str) -> None:
    platform = Platform(tmp_path)
    platform.environ()
    (platform.home / "atelier.yaml").write_text(text)

    assert words in _refusal(platform.popen())


def test_a_port_that_there_is_not_is_refused(tmp_path: Path) -> None:
    assert _refusal(Platform(tmp_path).popen(port=70000)).startswith("There is no port 70000.")


def test_logs_are_private(platform: Platform) -> None:
    logs = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (platform.home / "run").glob("*.log")}

    assert logs == {"hub.log": 0o600, "proxy.log": 0o600, "service.log": 0o600}
