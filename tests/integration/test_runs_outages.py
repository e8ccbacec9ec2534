"""A service that was away takes nothing for dead that only could not speak to it, and mends what its end cut in two."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from atelier.records import Run
from atelier.storage import RunPaths
from atelier.wire import API
from tests.cli_driver import wait_for
from tests.integration.conftest import GPUS
from tests.service_driver import Service, service_over, write

GATED = (
    "import pathlib, time\nprint('begun', flush=True)\nwhile not pathlib.Path(GATE).exists():\n    time.sleep(0.02)\n"
)
LONG_AGO = "2020-01-01 00:00:00.000000"


def gated(folder: Path) -> Path:
    """A script that runs until the file ``gate`` lies beside it."""
    return write(folder, train__py=GATED.replace("GATE", repr(str(folder / "gate"))))


def open_gate(work: Path) -> None:
    (work.parent / "gate").touch()


@pytest.fixture(scope="module")
def own() -> Iterator[Service]:
    """A service with one GPU that is killed and started again; each test leaves it running."""
    with service_over(more={"ATELIER_TEST_GPUS": GPUS[0]}) as place:
        yield place


def change(service: Service, statement: str, *values: object) -> None:
    """Let a service that is killed find in its database what a long time, or another moment of its death, had left."""
    with closing(sqlite3.connect(service.home / "db/atelier.sqlite")) as database, database:
        assert database.execute(statement, values).rowcount > 0


def test_a_run_that_could_not_speak_is_not_stalled(own: Service, tmp_path: Path) -> None:
    work = gated(tmp_path)
    run_id = own.submit(work, stall_timeout_s=120)
    own.wait_log(run_id, "begun")
    own.kill()
    change(own, "UPDATE attempts SET last_seen_at = ? WHERE run_id = ?", LONG_AGO, run_id)
    own.start()
    wait_for(lambda: own.run(run_id).attempts[0].last_seen_at.year > 2020, "the agent to come back", timeout_s=60)
    open_gate(work)
    assert own.wait(run_id).state == "succeeded"


def test_a_kernel_that_could_not_renew_keeps_its_gpu(own: Service, tmp_path: Path) -> None:
    lease = f"{API}/leases/kernel-1"
    with own.http as http:
        held = http.put(lease, json={"machine": "gpu"})
        assert held.json()["devices"] == {"nvidia.com/gpu": [GPUS[0]]}
    waiting = own.submit(write(tmp_path, train__py="1"), machine="gpu")
    own.kill()
    change(own, "UPDATE leases SET expires_at = ? WHERE holder = 'kernel:kernel-1'", LONG_AGO)
    own.start()
    marker = own.finish(write(tmp_path / "marker", train__py="1"))
    assert marker.state == "succeeded"
    assert own.run(waiting).state == "queued", "the kernel's GPU was given to a run"
    with own.http as http:
        assert http.put(lease, json={"machine": "gpu"}).json() == held.json()
        assert http.delete(lease).status_code == 204
    assert own.wait(waiting).state == "succeeded"


def test_a_record_that_a_crash_kept_old_is_mended(own: Service, tmp_path: Path) -> None:
    run_id = own.finish(write(tmp_path, train__py="1")).id
    record = own.home / "blobs" / RunPaths(run_id).record
    wait_for(lambda: Run.model_validate_json(record.read_text()).state.is_final, "the record of the end")
    own.kill()
    record.write_text("{}")
    change(own, "UPDATE runs SET recorded = 0, ended_at = ? WHERE id = ?", LONG_AGO, run_id)
    own.start()
    wait_for(lambda: record.read_text() != "{}", "the record to be mended")
    assert Run.model_validate_json(record.read_text()) == own.run(run_id)
