"""What another timeline left where an attempt writes is not the attempt's; and what is too much to keep ends no run."""

from __future__ import annotations

from pathlib import Path

from atelier.storage import FilesystemBlobs, RunPaths
from tests.service_driver import SETTINGS, service_over, write

TRIES_AGAIN = """
    import pathlib, sys, time, atelier
    job = atelier.current_run()
    print("attempt", job.attempt, flush=True)
    while not pathlib.Path(GATE).exists():
        time.sleep(0.02)
    sys.exit(1 if job.attempt == 1 else 0)
"""
TOO_MUCH = """
    import pathlib, atelier
    job = atelier.current_run()
    for step, size in ((1, 1000), (2, 60_000)):
        pathlib.Path("weights").write_bytes(bytes(size))
        job.checkpoint("weights", step=step)
    pathlib.Path("package").mkdir()
    pathlib.Path("package/model.json").write_text('{"name": "digits"}')
    pathlib.Path("package/weights.csv").write_text("0.5\\n" * 500)
    job.add_model("digits", "package")
    print("went on")
"""


def test_an_attempt_begins_with_nothing_of_another_timeline(tmp_path: Path) -> None:
    """Its folders hold a longer log, a result, a file and a checkpoint of an attempt of this number."""
    gate = tmp_path / "gate"
    work = write(tmp_path / "code", train__py=TRIES_AGAIN.replace("GATE", repr(str(gate))))
    with service_over() as place:
        run_id = place.submit(work, retries=1)
        place.wait_log(run_id, "attempt 1\n")
        blobs, paths = FilesystemBlobs(place.home / "blobs"), RunPaths(run_id)
        strange = [
            paths.whole(2, "log"),
            paths.whole(2, "metrics"),
            paths.chunk(2, "log", 0),
            paths.artifact(2, "other.bin", sha256="0" * 64),
            f"{paths.checkpoint(2, 7, copy=1)}/state.pt",
        ]
        for key in strange:
            blobs.write(key, b"of another timeline\n" * 10)
        gate.touch()
        run = place.wait(run_id, "succeeded", patience_s=60)
        assert len(run.attempts) == 2
        assert blobs.read(paths.whole(1, "log")) == b"attempt 1\n"
        assert blobs.read(paths.whole(2, "log")) == b"attempt 2\n"
        assert blobs.read(paths.whole(2, "metrics")).count(b"another timeline") == 0
        assert not [key for key in strange[2:] if blobs.exists(key)]


def test_a_checkpoint_and_a_model_that_are_too_much_are_named_and_the_run_goes_on(tmp_path: Path) -> None:
    work = write(tmp_path, train__py=TOO_MUCH)
    with service_over(settings=SETTINGS + "limits: {checkpoint_size: 50000, model_size: 1000}\n") as place:
        run = place.finish(work)
        assert (run.state, place.log(run.id)) == ("succeeded", "went on\n")
        assert run.checkpoint_step == 1
        assert place.get("/models/digits").status_code == 404
        told = "\n".join(run.warnings)
        assert "The checkpoint of step 2 has" in told, told
        assert "one may have 48.8 KiB" in told
        assert "of the 1000 B of models that a run may make 1000 B are left" in told
