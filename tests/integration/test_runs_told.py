"""What code tells of its run, also too much of it: what its calls returned from is there, the rest is told."""

from __future__ import annotations

from pathlib import Path

from tests.service_driver import Service, write


def test_one_call_that_tells_too_much_takes_nothing_from_others(service: Service, tmp_path: Path) -> None:
    """30,000 values at once, a line that nobody's recorder writes, more warnings than there is room for."""
    work = write(
        tmp_path,
        train__py="""
            import os, pathlib, atelier
            job = atelier.current_run()
            job.log(step=1, **{f"{n}{'x' * 190}": 1.0 for n in range(30_000)})
            with open(os.environ["ATELIER_RUN_DIR"] + "/spool/metrics.jsonl", "a") as metrics:
                metrics.write("x" * 5_000_000 + chr(10))
            with open(os.environ["ATELIER_RUN_DIR"] + "/spool/metrics.jsonl.lost", "r+") as lost:
                lost.write(f"{105:020}")
            for n in range(120):
                job.warn(f"warning {n}")
            job.log(step=2, loss=0.5)
            pathlib.Path("poetry.lock").touch()
            os.symlink("poetry.lock", "link")
        """,
    )
    run = service.finish(work)
    assert run.state == "succeeded", service.log(run.id)
    stream = (service.home / "blobs/runs" / run.id / "attempts/1/metrics.jsonl").read_bytes()
    assert stream.count(b'"step":1,') == 118
    assert stream.count(b"x") == 30_000 * 190
    assert b'"step":2,"values":{"loss":0.5}' in stream
    own = [text for text in run.warnings if text.startswith("warning ")]
    assert own == [f"warning {n}" for n in range(len(own))]
    assert 40 < len(own) <= 50
    told = "\n".join(run.warnings)
    for words in (
        "A line of more than 4194304 bytes of metrics was left out.",
        "105 lines of values were lost",
        "70 more warnings that the code gave were left out.",
        "link (a link)",
    ):
        assert words in told
    assert "poetry.lock" in service.artifacts(run.id)
