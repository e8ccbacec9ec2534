"""Packages that a work asks for beside it are installed over the image, once, and only for it. No network is needed."""

from __future__ import annotations

import hashlib
import os
import time
import zipfile
from pathlib import Path

import pytest

from atelier.local.layers import clear_unused
from atelier.service.housekeeping import LAYER_AGE_S
from tests.cli_driver import notebook, wait_for
from tests.service_driver import SETTINGS, Service, service_over, write

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


def slow_work(folder: Path) -> Path:
    """A script whose requirements take a minute to build; the file ``started`` appears when that begins."""
    backend = "[build-system]\nrequires = []\nbuild-backend = 'slow'\nbackend-path = ['.']\n"
    write(folder / "slow", pyproject__toml=backend, slow__py=SLOW.replace("STARTED", repr(str(folder / "started"))))
    return write(folder, train__py="print('never')", requirements__txt="--no-index\n./slow\n")


@pytest.mark.parametrize("now", [False, True])
def test_an_installation_is_stopped(service: Service, tmp_path: Path, now: bool) -> None:
    """Its build goes on for a minute; a cancel does not wait for it, and leaves nothing half made."""
    work = slow_work(tmp_path)
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


def test_who_waits_for_anothers_installation_is_stopped_too(service: Service, tmp_path: Path) -> None:
    work = slow_work(tmp_path)
    first = service.submit(work)
    wait_for((tmp_path / "started").exists, "the build to start")
    second = service.submit(work)
    wait_for(lambda: service.run(second).attempts and service.of_attempt(second), "the second one's agent to start")
    service.client.cancel(second)
    assert service.wait(second, patience_s=8).state == "cancelled"
    assert service.run(first).state == "starting", "the first one's installation was ended as well"
    service.client.cancel(first, now=True)
    service.wait(first)


def test_an_installation_ends_with_the_runs_time(service: Service, tmp_path: Path) -> None:
    run = service.finish(slow_work(tmp_path), timeout_s=3, patience_s=25)
    assert (run.state, run.reason, run.started_at) == ("timed_out", "deadline", None)
    assert (tmp_path / "started").exists()


def test_an_installation_has_a_limit_of_its_own(tmp_path: Path) -> None:
    with service_over(settings=SETTINGS + "limits: {install_time: 3s}\n") as place:
        run = place.finish(slow_work(tmp_path), timeout_s=600, patience_s=25)
        assert (run.state, run.reason) == ("failed", "requirements")
        assert "3.0 s" in run.message
        assert "limits.install_time" in run.message
        assert list(place.home.glob("envs/layers/*")) == list(place.home.glob("envs/layers/*.lock"))


def test_a_layer_goes_when_it_was_not_used_for_long_and_nobody_has_it(tmp_path: Path) -> None:
    folder, gate = tmp_path / "code", tmp_path / "gate"
    make_wheel(folder, "hello")
    wait = f"\nimport pathlib, time\nwhile not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.02)\n"
    with service_over() as place:
        run_id = place.submit(write(folder, train__py=USE + wait, requirements__txt=ASKED))
        place.wait_log(run_id, "hello")
        (ready,) = layers(place)
        age(ready)
        assert clear_unused(ready.parent, LAYER_AGE_S) == 0, "a layer went that a run has"
        gate.touch()
        assert place.wait(run_id).state == "succeeded"
        assert "Installing" not in place.log(place.finish(folder / "train.py").id)
        assert clear_unused(ready.parent, LAYER_AGE_S) == 0, "its last use did not count"
        age(ready)
        place.stop()
        place.start()
        wait_for(lambda: not list(ready.parent.iterdir()), "the housekeeper to clear the layer")
        assert "Installing" in place.log(place.finish(folder / "train.py").id)


def age(ready: Path) -> None:
    """Let a layer's last use be long ago."""
    then = time.time() - LAYER_AGE_S - 60
    os.utime(ready, (then, then))
