"""The service that a client starts: one per home, found again after a crash, explained when it can't start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.cli_driver import Terminal, service_pid, stop_service, terminal, wait_for

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def there() -> Iterator[Terminal]:
    with terminal() as place:
        yield place


def test_clients_that_start_at_once_get_one_service(there: Terminal) -> None:
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: there.type("runs", "--json"), range(4)))
    assert [each.code for each in done] == [0] * 4, done
    program = f"python -m atelier.service --home {there.home}"
    started = [
        line for line in subprocess.check_output(["ps", "-eo", "args"], text=True).splitlines() if program[7:] in line
    ]
    assert len(started) == 1, started


def test_the_service_outlives_its_client_and_belongs_to_no_terminal(there: Terminal) -> None:
    there.json("runs")
    pid = service_pid(there.home)
    assert pid
    assert os.getsid(pid) == pid
    assert os.getsid(pid) != os.getsid(0)
    there.json("runs")
    assert service_pid(there.home) == pid


def test_the_service_bears_no_mark_of_a_run_that_it_would_end_with(
    there: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATELIER_ATTEMPT_KEY", "r-abcdefghij/1")
    there.json("runs")
    pid = service_pid(there.home)
    assert b"ATELIER_ATTEMPT_KEY" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_a_home_that_another_service_is_just_leaving_is_waited_for(there: Terminal) -> None:
    (there.home / "run").mkdir()
    lock = str(there.home / "run" / "service.lock")
    program = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'a'); fcntl.flock(f, 2); print(1, flush=True); time.sleep(2)"
    )
    with subprocess.Popen([sys.executable, "-c", program, lock], stdout=subprocess.PIPE, text=True) as leaving:
        assert leaving.stdout
        leaving.stdout.readline()
        done = there.type("runs", "--json")
    assert done.code == 0, done
    assert (there.home / "run" / "service.log").read_text().count("Started server process") == 1


def test_a_killed_service_is_replaced_and_its_run_goes_on(there: Terminal) -> None:
    there.write("steps.py", "import time\nfor n in range(6):\n    print(n, flush=True)\n    time.sleep(0.5)\n")
    run_id = there.json("submit", "steps.py")["id"]
    wait_for(lambda: there.json("logs", run_id)["text"], "the first line of the run")
    first = service_pid(there.home)
    stop_service(there.home, signal.SIGKILL)
    done = there.type("logs", "-f", run_id, timeout_s=90)
    assert (done.code, done.out) == (0, "0\n1\n2\n3\n4\n5\n"), done
    assert service_pid(there.home) != first


def test_a_follower_bears_a_killed_service(there: Terminal) -> None:
    there.write("steps.py", "import time\nfor n in range(6):\n    print(n, flush=True)\n    time.sleep(0.5)\n")
    with there.begin("submit", "steps.py", "--follow") as process:
        assert process.stdout
        assert process.stdout.readline() == "0\n"
        stop_service(there.home, signal.SIGKILL)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "1\n2\n3\n4\n5\n"), err


def test_a_service_that_can_not_start_shows_the_end_of_its_log(there: Terminal) -> None:
    (there.home / "atelier.yaml").write_text("limits: {runs_per_usr: 1}\n")
    done = there.type("runs", "--json")
    assert done.code == 5
    error = done.document["error"]
    assert error["code"] == "start_failed"
    assert "runs_per_user" in error["message"]
    assert "service.log" in error["hint"]


def _doctors_images(there: Terminal) -> dict[str, str]:
    checked = json.loads(there.type("doctor", "--json").out)["checks"]
    return {check["name"]: check["status"] for check in checked if check["name"].startswith("image ")}


def _refusal(there: Terminal) -> str:
    code: str = there.type("submit", "job.py", "--image", "late", "--json").document["error"]["code"]
    return code


def test_an_image_built_and_one_taken_away_while_the_service_lives_are_seen_by_doctor_and_submit(
    there: Terminal, tmp_path: Path
) -> None:
    there.json("runs")
    there.write("job.py", "print('done')\n")
    note = there.home / "envs" / "late.json"
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    fields = {"name": "late", "title": "Late", "framework": "pytest", "version": version("pytest")}
    note.parent.mkdir()
    note.write_text(json.dumps(fields | {"python": str(python)}))

    assert list(_doctors_images(there)) == ["image late"]
    assert there.json("submit", "job.py", "--image", "late")["image"] == "late"

    python.unlink()
    assert _doctors_images(there) == {"image late": "fail"}
    assert _refusal(there) == "image_not_available"

    note.unlink()
    assert _doctors_images(there) == {}
    assert _refusal(there) == "unknown_image"


def test_settings_that_change_while_the_service_lives_are_seen_and_wrong_ones_change_nothing(there: Terminal) -> None:
    there.json("runs")
    there.write("job.py", "print('done')\n")
    settings = there.home / "atelier.yaml"
    settings.write_text("catalog: {machines: [{name: tiny, cpu: 1, memory: 1Gi}]}\n")
    assert there.json("submit", "job.py")["machine"] == "tiny"

    settings.write_text("catalog: {machins: []}\n")
    assert there.json("submit", "job.py")["machine"] == "tiny"
    assert "machins" in (there.home / "run" / "service.log").read_text()


def test_without_the_platform_its_absence_is_explained(there: Terminal) -> None:
    """An image's Python has no FastAPI; here it is hidden from an otherwise whole one."""
    program = (
        "import sys, importlib.abc\n"
        "class Hide(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'fastapi': raise ModuleNotFoundError(name)\n"
        "import importlib.util as u\n"
        "found = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'fastapi' else found(name, *rest)\n"
        "from atelier.cli import main\n"
        "sys.exit(main(['runs']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=there.environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 5, done.stderr
    assert done.stderr.startswith("error[no_platform]: ")
    assert "make up" in done.stderr
    (there.home / "envs").mkdir()
    (there.home / "envs" / "platform.json").write_text(f'{{"python": "{sys.executable}"}}')
    done = subprocess.run(
        [sys.executable, "-c", program], env=there.environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_another_place_by_url(there: Terminal) -> None:
    (there.home / "token").write_text("wrong")
    url = ["--url", "http://127.0.0.1:9", "--token-file", str(there.home / "token")]
    done = there.type("runs", *url, "--json", timeout_s=30)
    assert (done.code, done.document["error"]["code"]) == (5, "unreachable")
    done = there.type("runs", "--url", "nonsense", "--token-file", str(there.home / "token"))
    assert (done.code, done.err.split(":")[0]) == (2, "error[bad_url]")
    done = there.type("runs", "--url", "http://127.0.0.1:9")
    assert (done.code, done.err.split(":")[0]) == (4, "error[no_token]")


def test_a_wrong_token_is_not_allowed(there: Terminal) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "atelier.service", "--home", str(there.home), "--port", "0"],
        env=there.environ,
        stderr=subprocess.PIPE,
        text=True,
    ) as service:
        try:
            wait_for(lambda: service_pid(there.home) or service.poll(), "the service's note")
            note = there.home / "run" / "service.json"
            assert note.exists(), service.stderr and service.stderr.read()
            (there.home / "token").write_text("wrong")
            text = note.read_text().replace("secrets/service_user_token", "token")
            note.write_text(text)
            done = there.type("runs")
        finally:
            service.terminate()
    assert done.code == 4, done
    assert done.err.startswith("error[unauthenticated]: ")
