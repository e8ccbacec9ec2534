"""Runs and service on one small disk that gets full: the end is told, what helps is possible, and all is named."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from atelier.wire import API, PREFIX
from tests.cli_driver import wait_for
from tests.service_driver import IMPATIENT, Service, service_over, write
from tests.small_disk import small_disk

FILL = """
    import time
    print("before", flush=True)
    with open("big.bin", "wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(1 << 16))
            except OSError:
                if not HOLDS:
                    raise
                time.sleep(0.02)
"""


@pytest.fixture
def small() -> Iterator[Service]:
    """A service whose whole home lies on a disk of 40 MiB; its log does not."""
    with tempfile.TemporaryDirectory(prefix="atl-") as folder:
        home = Path(folder) / "home"
        home.mkdir()
        with small_disk(home, "40m"):
            (home / "service.log").symlink_to(Path(folder) / "service.log")
            with service_over(home, settings=IMPATIENT) as place:
                yield place


def free(service: Service) -> int:
    status = os.statvfs(service.home)
    return status.f_bavail * status.f_frsize


def wait_full(service: Service) -> None:
    wait_for(lambda: free(service) < 1 << 16, "the disk to be full", timeout_s=60)


def fill(service: Service) -> Path:
    """Leave no byte free; the file to remove for it."""
    return fill_folder(service.home)


def fill_folder(folder: Path) -> Path:
    """Leave no byte free on the disk of a folder; the file to remove for it."""
    weight = folder / "weight"
    with pytest.raises(OSError, match="No space left"), weight.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))
    return weight


def ready(service: Service) -> tuple[int, str]:
    with service.http as http:
        answer = http.get(f"{PREFIX}/readyz")
    return answer.status_code, answer.text


def test_runs_that_can_not_be_started_now_are_started_later(tmp_path: Path) -> None:
    """A full disk under the attempts' folders emptied the queue, one run after the other."""
    with tempfile.TemporaryDirectory(prefix="atl-") as folder:
        attempts = Path(folder) / "run/attempts"
        attempts.mkdir(parents=True)
        with small_disk(attempts, "4m"), service_over(Path(folder)) as place:
            weight = fill_folder(attempts)
            ids = [place.submit(write(tmp_path / str(number), train__py="print('ran')")) for number in range(3)]
            wait_for(lambda: "can't be started now" in place.service_log, "a start to fail")
            time.sleep(4)
            waiting = [place.run(run_id) for run_id in ids]
            assert {run.state.value for run in waiting} <= {"queued", "starting"}
            (first,) = (run for run in waiting if run.state == "starting")
            assert first.message.startswith("The computer can't start it now: No space left on device."), first
            assert "atelier rm" in first.hint, first
            weight.unlink()
            for run in map(place.wait, ids):
                assert (run.state, run.hint, len(run.attempts)) == ("succeeded", "", 1), run


def test_a_run_that_fills_the_disk_ends_as_such(small: Service, tmp_path: Path) -> None:
    run_id = small.submit(write(tmp_path, train__py=FILL.replace("HOLDS", "False")))
    wait_full(small)
    run = small.wait(run_id, patience_s=120)
    assert (run.state, run.reason, len(run.attempts)) == ("failed", "disk_full", 1), run
    error = run.attempts[0].error
    assert error is not None
    assert "[Errno 28]" in error.message
    assert "file.write" in error.traceback
    log = small.log(run_id)
    assert log.startswith("before\n")
    assert "No space left on device" in log
    assert any("big.bin was not kept" in text for text in run.warnings), run.warnings
    wait_for(lambda: ready(small) == (200, "ok"), "room")
    assert small.finish(write(tmp_path / "next", train__py="print('fine')")).state == "succeeded"


def test_what_makes_room_works_on_a_full_disk_and_all_else_names_it(small: Service, tmp_path: Path) -> None:
    old = small.finish(write(tmp_path / "old", train__py="open('kept.bin', 'wb').write(bytes(2_000_000))"))
    run_id = small.submit(write(tmp_path, train__py=FILL.replace("HOLDS", "True")))
    wait_full(small)
    wait_for(lambda: ready(small)[0] == 503, "the service not to be ready")
    assert "disk_full" in ready(small)[1]
    assert str(small.home) in ready(small)[1]
    with small.http as http:
        for _ in range(5):
            refused = http.put(f"{API}/bundles/{'0' * 64}", content=os.urandom(3_000_000))
            assert refused.status_code == 507, refused.text
            error = refused.json()["error"]
            assert error["code"] == "disk_full"
            assert "remove ended runs" in error["hint"]
    time.sleep(5)
    assert "A disk is full" not in small.service_log.replace("A disk is full", "", 1)
    assert small.service_log.count("Traceback") == 0
    with small.http as http:
        assert http.delete(f"{API}/runs/{old.id}").status_code == 204
        wait_full(small)
        cancelled = http.post(f"{API}/runs/{run_id}/cancel", json={"now": True})
        assert cancelled.status_code == 200, cancelled.text
    assert small.wait(run_id, patience_s=120).state == "cancelled"
    wait_for(lambda: ready(small) == (200, "ok"), "room", timeout_s=60)
    wait_for(lambda: (small.home / "db/reserve").stat().st_size == 8 << 20, "the room to be held again", timeout_s=60)
    assert small.service_log.count("Traceback") == 0
    records = small.home / "blobs/runs" / run_id / "run.json"
    wait_for(lambda: '"cancelled"' in records.read_text(), "the record", timeout_s=60)


def test_a_disk_that_was_full_for_a_while_costs_nothing(small: Service, tmp_path: Path) -> None:
    code = """
        import pathlib, time
        for number in range(30):
            print("line", number, flush=True)
            time.sleep(0.2)
        while True:
            try:
                pathlib.Path("o.txt").write_text("x" * 6000)
                break
            except OSError:
                time.sleep(0.2)
    """
    run_id = small.submit(write(tmp_path, train__py=code))
    small.wait_log(run_id, "line 1\n")
    weight = fill(small)
    time.sleep(12)
    weight.unlink()
    run = small.wait(run_id, patience_s=90)
    assert run.state == "succeeded", run
    assert small.log(run_id) == "".join(f"line {number}\n" for number in range(30))
    assert small.content(run_id, "o.txt") == b"x" * 6000
    assert not [text for text in run.warnings if "is asked again" not in text]


def test_a_log_that_fills_the_disk_leaves_its_run_to_be_cancelled(small: Service, tmp_path: Path) -> None:
    run_id = small.submit(write(tmp_path, train__py="while True: print('x' * 5000)"))
    wait_for(lambda: free(small) < 5 << 20, "little room to be left", timeout_s=60)
    time.sleep(5)
    assert small.run(run_id).state == "running"
    small.client.cancel(run_id, now=True)
    run = small.wait(run_id, patience_s=120)
    assert run.state == "cancelled"
    assert any("bytes of the log were lost: the disk was full" in text for text in run.warnings), run.warnings
    assert small.log(run_id).startswith("x" * 5000)
    wait_for(lambda: not small.attempt_folder(run_id).exists(), "the attempt's place to be free")
    small.client.remove(run_id)
    wait_for(lambda: ready(small) == (200, "ok"), "room", timeout_s=60)


def test_a_model_can_be_removed_from_a_full_disk(small: Service) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    files = [{"path": "weights", "size_bytes": 7, "sha256": digest}]
    with small.http as http:
        assert http.put(f"{API}/uploads/{digest}", content=b"weights").status_code == 201
        assert http.post(f"{API}/models", json={"name": "m", "card": {}, "files": files}).status_code == 201
        weight = fill(small)
        try:
            answer = http.delete(f"{API}/models/m/versions/1")
            assert answer.status_code == 204, answer.text
            assert http.get(f"{API}/models/m").status_code == 404
        finally:
            weight.unlink()
