"""What is stored goes from the disk of a run: it needs no more for it than for its newest checkpoint."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.cli_driver import wait_for
from tests.integration.test_cli_models import PACK
from tests.service_driver import Service, write

TELLS = """
    import pathlib, sys, time, atelier
    from pack import package
    job = atelier.current_run()
    for step in range(15):
        pathlib.Path("weights").write_bytes(bytes([step]) * 50_000)
        job.checkpoint("weights", step=step)
        job.save("weights", name="newest.bin")
        job.save("weights", name=f"each/{step}.bin")
    for text in ("first", "second"):
        job.add_model(MODEL, package(MODEL, text, text))
    print("told", flush=True)
    while not pathlib.Path(GATE).exists():
        time.sleep(0.02)
"""


def telling(folder: Path, model: str) -> tuple[Path, Path]:
    """A script that tells of much, also of a model, and then waits for a file; the file."""
    gate = folder / "gate"
    code = TELLS.replace("GATE", repr(str(gate))).replace("MODEL", repr(model))
    return write(folder, train__py=code, pack__py=PACK), gate


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def versions(service: Service, model: str) -> int:
    """How many versions of a model there are."""
    return len(service.get(f"/models/{model}").json().get("items", []))


def wait_stored(service: Service, run_id: str, model: str) -> Path:
    """Wait until all that was told of is stored; the spool."""
    service.wait_log(run_id, "told")
    wait_for(lambda: versions(service, model) >= 2, "both models to be published")
    spool = service.attempt_folder(run_id) / "run/spool"
    wait_for(lambda: not files_in(spool / "models"), "the spool to be emptied")
    return spool


def checkpoints(service: Service, run_id: str) -> dict[str, bytes]:
    """Path → first byte of each stored file of checkpoints that is no manifest."""
    root = service.home / "blobs/runs" / run_id / "checkpoints"
    paths = list(root.rglob("weights"))
    assert all((path.parent / "MANIFEST.sha256").exists() for path in paths)
    return {path.parent.name: path.read_bytes()[:1] for path in paths}


def test_what_is_stored_leaves_the_spool(service: Service, tmp_path: Path) -> None:
    script, gate = telling(tmp_path, "first")
    run_id = service.submit(script)
    spool = wait_stored(service, run_id, "first")
    assert files_in(spool / "artifacts") == []
    assert files_in(spool / "checkpoints") == ["step-00000014/MANIFEST.sha256", "step-00000014/weights"]
    assert not list(service.attempt_folder(run_id).glob("held/*"))
    gate.touch()
    run = service.wait(run_id)
    assert (run.state, run.warnings) == ("succeeded", [])
    assert {f"each/{step}.bin" for step in range(15)} | {"newest.bin"} <= set(service.artifacts(run_id))
    assert [service.content(run_id, f"each/{step}.bin")[:1] for step in (0, 14)] == [b"\0", b"\x0e"]
    assert service.content(run_id, "newest.bin") == b"\x0e" * 50_000
    assert sorted(checkpoints(service, run_id).values()) == [b"\x0c", b"\x0d", b"\x0e"]


def test_what_is_stored_is_not_missed_by_an_agent_that_takes_over(service: Service, tmp_path: Path) -> None:
    """The first one died before it noted what it had taken, so that all comes again."""
    run_id = service.submit(telling(tmp_path, "second")[0])
    spool = wait_stored(service, run_id, "second")
    before = checkpoints(service, run_id)
    (agent,) = service.agents(run_id)
    (spool / "events.jsonl.taken").unlink()
    os.kill(agent, signal.SIGKILL)
    run = service.wait(run_id)
    assert (run.state, run.warnings) == ("lost", [])
    assert sorted(before.values()) == [b"\x0c", b"\x0d", b"\x0e"]
    assert checkpoints(service, run_id) == before
    assert service.content(run_id, "newest.bin") == b"\x0e" * 50_000
    assert versions(service, "second") == 2
