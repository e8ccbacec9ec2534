"""Packages that a work asks for beside it are installed over the image, once, and only for it. No network is needed."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from tests.cli_driver import notebook, wait_for
from tests.service_driver import Service, service_over, write

WHEEL = "greeting_of_mine-1.0-py3-none-any.whl"
ASKED = f"--no-index\n./{WHEEL}\n"
USE = """
import greeting_of_mine, importlib.metadata
print(greeting_of_mine.WORD, importlib.metadata.version("greeting-of-mine"))
"""


def make_wheel(folder: Path, word: str) -> None:
    """A wheel of one module with a word in it."""
    folder.mkdir(parents=True, exist_ok=True)
    about = "greeting_of_mine-1.0.dist-info"
    files = {
        "greeting_of_mine.py": f"WORD = {word!r}\n",
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: greeting-of-mine\nVersion: 1.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": "",
    }
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(zipfile.ZipInfo(name), text)


def layers(service: Service) -> list[Path]:
    return sorted(service.home.glob("envs/layers/*.ready"))


def test_requirements_are_installed_once_for_the_same_code(service: Service, tmp_path: Path) -> None:
    make_wheel(tmp_path, "hello")
    script = write(tmp_path, train__py=USE, requirements__txt=ASKED)
    before = len(layers(service))
    first, second = service.submit(script), service.submit(script)
    runs = [service.wait(first), service.wait(second)]
    logs = [service.log(run.id) for run in runs]
    assert all(log.endswith("hello 1.0\n") for log in logs), logs
    assert sum("Installing" in log for log in logs) == 1
    assert len(layers(service)) == before + 1
    environment = runs[0].environment
    assert environment is not None
    assert environment.requirements_sha256 == hashlib.sha256(ASKED.encode()).hexdigest()
    lock = (service.home / "blobs/runs" / first / "lock.txt").read_text()
    assert "greeting-of-mine==1.0\n" in lock
    assert lock.splitlines() == sorted(set(lock.splitlines()))
    assert hashlib.sha256(lock.encode()).hexdigest() == environment.lock_sha256

    make_wheel(tmp_path, "changed")
    assert service.log(service.finish(script).id).endswith("changed 1.0\n"), "another wheel of the same name was taken"
    (tmp_path / "requirements.txt").unlink()
    run = service.finish(script)
    assert (run.state, run.reason) == ("failed", "import_error")
    assert "requirements.txt" in run.hint


def test_a_notebook_gets_them_too(service: Service, tmp_path: Path) -> None:
    make_wheel(tmp_path, "cell")
    run = service.finish(write(tmp_path, train__ipynb=notebook(USE), requirements__txt=ASKED))
    assert run.state == "succeeded", run.message
    assert service.log(run.id).endswith("cell 1.0\n")


SLOW = """
import pathlib, time
pathlib.Path(STARTED).touch()
time.sleep(60)
"""


@pytest.mark.parametrize("now", [False, True])
def test_an_installation_is_stopped(service: Service, tmp_path: Path, now: bool) -> None:
    """Its build goes on for a minute; a cancel does not wait for it, and leaves nothing half made."""
    backend = "[build-system]\nrequires = []\nbuild-backend = 'slow'\nbackend-path = ['.']\n"
    write(tmp_path / "slow", pyproject__toml=backend, slow__py=SLOW.replace("STARTED", repr(str(tmp_path / "started"))))
    work = write(tmp_path, train__py="print('never')", requirements__txt="--no-index\n./slow\n")
    before = len(layers(service))
    run_id = service.submit(work)
    wait_for((tmp_path / "started").exists, "the build to start")
    pids = service.of_attempt(run_id)
    assert len(pids) > 1
    service.client.cancel(run_id, now=now)
    run = service.wait(run_id, patience_s=8)
    assert (run.state, run.reason, run.started_at) == ("cancelled", "cancelled_by_user", None)
    assert "never" not in service.log(run_id)
    assert len(layers(service)) == before


def test_an_image_that_went_away_meanwhile_is_named(tmp_path: Path) -> None:
    with service_over() as place:
        busy = write(tmp_path / "1", train__py="import time\nprint('begun', flush=True)\ntime.sleep(60)")
        holder = place.submit(busy, machine="whole")
        place.wait_log(holder, "begun")
        run_id = place.submit(write(tmp_path / "2", train__py="1"))
        place.stop()
        place.settings = place.settings.replace("name: plain,", "name: another,")
        place.start()
        place.client.cancel(holder, now=True)
        run = place.wait(run_id)
        assert (run.state, run.reason) == ("failed", "start_failed"), run.message
        assert "plain" in run.message
        record = place.home / "blobs/runs" / run_id / "run.json"
        wait_for(lambda: json.loads(record.read_text())["state"] == "failed", "the record on disk to say so too")
