"""A run whose image is not built on this computer waits for it, as after a restore into a fresh home."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from atelier.quantities import utcnow
from tests.cli_driver import wait_for
from tests.service_driver import SETTINGS, service_over, write

HOLDS = """
    import os, pathlib, time, atelier
    while not pathlib.Path(GATE).exists():
        time.sleep(0.02)
    if atelier.current_run().attempt == 1:
        os.kill(os.getpid(), 9)
    print("ran")
"""
OTHERS = SETTINGS.replace("name: plain", "name: other")


def test_a_run_waits_for_its_image_and_uses_up_no_retry(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    work = write(tmp_path / "w", train__py=HOLDS.replace("GATE", repr(str(gate))))
    with tempfile.TemporaryDirectory(prefix="atl-") as folder, service_over(Path(folder)) as place:
        run_id = place.submit(work, retries=1, image="plain")
        place.wait(run_id, "running")
        settings = Path(folder) / "atelier.yaml"
        settings.write_text(OTHERS)
        gate.touch()
        wait_for(lambda: "is not built" in place.run(run_id).message, "the next attempt to wait", timeout_s=30)
        told = place.run(run_id)
        assert told.state == "starting", told
        assert told.message.startswith("The image 'plain' is not built on this computer."), told
        assert told.hint == "Run 'make env IMAGES=plain' in the platform's checkout."
        other = place.finish(write(tmp_path / "o", train__py="print('ran')"), image="other")
        assert other.state == "succeeded", "what has its image doesn't wait for another's"
        begun = utcnow()
        wait_for(lambda: (utcnow() - begun).total_seconds() > 4, "two looks at it")
        assert place.run(run_id).message == told.message
        settings.write_text(SETTINGS)
        run = place.wait(run_id, patience_s=60)
        assert (run.state, run.hint, len(run.attempts)) == ("succeeded", "", 2), run


def test_one_that_waits_for_its_image_can_be_cancelled(tmp_path: Path) -> None:
    gone = SETTINGS.replace(sys.executable, str(tmp_path / "python"))
    (tmp_path / "python").symlink_to(sys.executable)
    work = write(tmp_path / "w", train__py="print('ran')")
    with tempfile.TemporaryDirectory(prefix="atl-") as folder, service_over(Path(folder), settings=gone) as place:
        blocks = place.submit(write(tmp_path / "b", train__py="import time; time.sleep(600)"), machine="whole")
        place.wait(blocks, "running")
        run_id = place.submit(work)
        (tmp_path / "python").unlink()
        place.client.cancel(blocks, now=True)
        wait_for(lambda: "is not built" in place.run(run_id).message, "it to wait for its image", timeout_s=30)
        place.client.cancel(run_id)
        run = place.wait(run_id, patience_s=30)
        assert (run.state, len(run.attempts)) == ("cancelled", 1), run
