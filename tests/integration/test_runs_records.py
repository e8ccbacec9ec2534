"""What a run tells and leaves: its log as it grows, metrics, progress, files, all as they were and within limits."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli_driver import notebook, wait_for
from tests.service_driver import SETTINGS, Service, service_over, write

LOG_LIMIT = 200_000


@pytest.fixture(scope="module")
def small_service() -> Iterator[Service]:
    """A service whose runs may keep little."""
    limits = f"limits: {{log_size: {LOG_LIMIT}, artifact_size: 100000}}\n"
    with service_over(settings=SETTINGS + limits) as place:
        yield place


# -- log ----------------------------------------------------------------------------------------------------------
def test_the_log_is_there_while_the_run_goes_on(service: Service, tmp_path: Path) -> None:
    work = write(
        tmp_path,
        train__py="""
            import pathlib, sys, time
            print("first")
            print("to stderr", file=sys.stderr)
            sys.stdout.write("no newline")
            while not pathlib.Path(GATE).exists():
                time.sleep(0.02)
            print(", then the rest")
        """.replace("GATE", repr(str(tmp_path / "gate"))),
    )
    run_id = service.submit(work)
    service.wait_log(run_id, "no newline")
    assert service.run(run_id).state == "running"
    page = service.client.log(run_id, offset=6)
    assert (page["text"], page["offset"], page["end"]) == ("to stderr\nno newline", 6, False)
    assert service.client.log(run_id, offset=page["next"])["text"] == ""
    (tmp_path / "gate").touch()
    service.wait(run_id)
    page = service.client.log(run_id, offset=page["next"])
    assert (page["text"], page["end"]) == (", then the rest\n", True)
    assert service.client.log(run_id, offset=-5)["text"] == "rest\n"
    assert service.client.log(run_id, offset=999)["text"] == ""


def test_a_log_can_be_read_in_pieces_of_any_size(service: Service, tmp_path: Path) -> None:
    """No letter is cut in two, whatever the piece; bytes that are no text don't stop anybody."""
    text = "aé🙂" * 40 + "\n"
    run = service.finish(write(tmp_path, train__py=f"import os\nos.write(1, {text.encode()!r} + b'\\xff\\xfe|end')"))
    whole = text + "\ufffd\ufffd|end"
    assert service.log(run.id) == whole
    for limit in (1, 3, 4, 7, 64, 1000):
        offset, pieces = 0, []
        while True:
            page = service.client.log(run.id, offset=offset, limit=limit)
            assert page["next"] > offset or page["end"], page
            pieces.append(page["text"])
            offset = page["next"]
            if page["end"] and offset >= page["size"]:
                break
        if limit >= 4:
            assert "".join(pieces) == whole, limit


def test_an_endless_line_is_kept_up_to_the_limit_and_said(small_service: Service, tmp_path: Path) -> None:
    work = write(
        tmp_path,
        train__py="""
            import sys
            for _ in range(50):
                sys.stdout.write("x" * 1_000_000)
            print("\\nthe end")
        """,
    )
    run = small_service.finish(work)
    assert run.state == "succeeded"
    size = run.attempts[0].log_size_bytes
    assert LOG_LIMIT <= size <= LOG_LIMIT + 200
    dropped = 50 * 1_000_000 + len("\nthe end\n") - LOG_LIMIT
    text = small_service.log(run.id)
    assert text.startswith("x" * (LOG_LIMIT // 2) + f"\n[{dropped} bytes were left out here")
    assert text.endswith("x" * (LOG_LIMIT // 2 - 9) + "\nthe end\n")
    assert any(f"{dropped} bytes" in warning for warning in run.warnings), run.warnings


# -- metrics and progress -----------------------------------------------------------------------------------------
TRAINING = """
    import time, atelier
    job = atelier.current_run()
    for step in range(4):
        job.log(step=step, loss=1 / (step + 1), **{"val/acc": step / 4})
        job.progress(step + 1, total=8)
        time.sleep(0.3)
    job.log(loss=float("nan"), grad=float("inf"))
    while not job.should_stop():
        time.sleep(0.05)
"""


def test_metrics_and_progress_are_seen_as_they_come(service: Service, tmp_path: Path) -> None:
    run_id = service.submit(write(tmp_path, train__py=TRAINING))
    seen_left: dict[float, float | None] = {}

    def four_are_done() -> bool:
        run = service.run(run_id)
        if run.progress is not None:
            seen_left[run.progress.done] = run.progress.left_s
        return "grad" in run.metrics and run.progress is not None and run.progress.done == 4

    wait_for(four_are_done, "the last metric of the run")
    assert seen_left.get(1) is None, "time left was told from one point"
    assert 0.5 < (seen_left[4] or 0) < 30, seen_left
    run = service.run(run_id)
    assert run.metrics == {"loss": None, "val/acc": 0.75, "grad": None}
    names = service.client.metrics(run_id)["names"]
    assert [point[:2] for point in names["loss"]["points"]] == [[0, 1.0], [1, 0.5], [2, 1 / 3], [3, 0.25], [None, None]]
    assert all(abs(point[2] - time.time()) < 60 for point in names["loss"]["points"])
    assert [point[:2] for point in service.client.metrics(run_id, name="val/acc")["points"]] == [
        [n, n / 4] for n in range(4)
    ]
    service.client.cancel(run_id)
    run = service.wait(run_id)
    assert run.state == "cancelled"
    assert run.progress is not None
    assert (run.progress.done, run.progress.left_s) == (4, None)
    assert any("loss is nan" in warning for warning in run.warnings)
    assert {"system/cpu_percent", "system/memory_bytes"} <= set(service.client.metrics(run_id)["names"])


def test_use_of_the_machine_is_told(service: Service, tmp_path: Path) -> None:
    work = write(
        tmp_path,
        train__py="""
            import time, atelier
            block = bytearray(80_000_000)
            while not atelier.current_run().should_stop():
                sum(range(10_000))
        """,
    )
    run_id = service.submit(work)
    wait_for(
        lambda: (
            service.run(run_id).attempts[:1]
            and service.run(run_id).attempts[0].usage.get("cpu_percent", 0) > 5
            and service.run(run_id).attempts[0].usage["memory_bytes"] > 80e6
        ),
        "the use of the machine",
    )
    service.client.cancel(run_id)
    run = service.wait(run_id)
    usage = run.attempts[0].usage
    assert run.state == "cancelled"
    assert run.memory_bytes is not None
    assert 80e6 < usage["memory_bytes"] <= usage["memory_peak_bytes"] < run.memory_bytes


def test_many_points_are_kept_and_thinned(service: Service, tmp_path: Path) -> None:
    work = write(
        tmp_path,
        train__py="""
            import atelier
            job = atelier.current_run()
            for step in range(20_000):
                job.log(step=step, loss=step)
        """,
    )
    run = service.finish(work)
    curve = service.client.metrics(run.id)["names"]["loss"]
    assert curve["count"] == 20_000
    assert curve["last"]["step"] == 19_999
    assert 250 <= len(curve["points"]) <= 500
    points = service.client.metrics(run.id, name="loss")["points"]
    assert [point[0] for point in points] == list(range(20_000))


def test_what_code_writes_into_its_spool_stops_nothing(service: Service, tmp_path: Path) -> None:
    """Torn and hostile lines, more warnings than one message holds, paths out of the spool: the rest is told."""
    work = write(
        tmp_path,
        train__py="""
            import os, json, atelier
            job = atelier.current_run()
            job.log(step=1, loss=0.5)
            spool = os.path.join(os.environ["ATELIER_RUN_DIR"], "spool")
            with open(os.path.join(spool, "metrics.jsonl"), "ab") as metrics:
                metrics.write(b'{"t": 1, "step": 2, "val\\n\\xff\\n')
                metrics.write(b'{"t": 1.0, "step": %d, "values": {"loss": 1}}\\n' % 10**40)
            job.log(step=2, loss=0.25)
            paths = ("../../token", "/etc/passwd", "..", "", "a/../../x", "nowhere")
            events = [{"type": "artifact", "path": path} for path in paths] + [
                {"type": "checkpoint", "step": "x", "folder": "checkpoints/x"},
                {"type": "checkpoint", "step": 3, "folder": "../.."},
                {"type": "model", "name": "../x", "folder": "../.."},
                {"type": "progress", "done": "x", "t": 0},
                {"type": "progress"},
                {"type": "progress", "done": 1, "t": 1e300},
                {"type": "progress", "done": float("inf"), "t": 1},
                {"type": "nothing"}, [], 7, None,
                {"type": "warning"},
                {"type": "warning", "text": "\\ud800 \\x00 odd"},
            ]
            with open(os.path.join(spool, "events.jsonl"), "ab") as file:
                for event in events:
                    file.write(json.dumps(event).encode() + b"\\n")
                file.write(b"\\xff\\xfe{not json\\n")
            for n in range(250):
                job.warn(f"warning {n}")
            job.save(__file__, name="kept.py")
            job.progress(1, total=2)
            print("done")
        """,
    )
    run = service.finish(work)
    assert run.state == "succeeded", service.log(run.id)
    assert [point[:2] for point in service.client.metrics(run.id, name="loss")["points"]] == [
        [1, 0.5],
        [2, 0.25],
    ]
    kept = list(service.artifacts(run.id))
    assert kept[0] == "kept.py"
    assert [path.rpartition("/")[0] for path in kept[1:]] == ["tensorboard/attempt-1"], run.warnings
    assert not (service.home / "blobs/runs" / run.id / "checkpoints").exists()
    assert run.progress is not None
    assert run.progress.done == 1
    assert 40 < len([warning for warning in run.warnings if warning.startswith("warning ")]) <= 50
    assert service.log(run.id) == "done\n"


# -- files --------------------------------------------------------------------------------------------------------
def test_written_and_saved_files_are_kept(service: Service, tmp_path: Path) -> None:
    work = write(
        tmp_path,
        train__py="""
            import os, pathlib, atelier
            pathlib.Path("model.pt").write_bytes(bytes(range(256)))
            pathlib.Path("out/deep").mkdir(parents=True)
            pathlib.Path("out/deep/naïve 🙂 #1?100%.txt").write_text("odd")
            with open("table.csv", "a") as table:
                table.write("3,4\\n")
            os.symlink("/etc/passwd", "link")
            os.mkfifo("pipe")
            pathlib.Path("x.tmp").touch()
            pathlib.Path(".cache").mkdir(); pathlib.Path(".cache/y").touch()
            open(b"\\xff\\xfe.bin", "w").close()
            atelier.current_run().save("table.csv", name="figures/table-saved.csv")
            pathlib.Path("table-2.csv").write_text("gone"); os.remove("table-2.csv")
        """,
        table__csv="1,2\n",
        unchanged__txt="as it was",
    )
    run = service.finish(work)
    assert run.state == "succeeded", service.log(run.id)
    kept = service.artifacts(run.id)
    assert {path: artifact["kind"] for path, artifact in kept.items()} == {
        "model.pt": "written",
        "out/deep/naïve 🙂 #1?100%.txt": "written",
        "%FF%FE.bin": "written",
        "table.csv": "written",
        "x.tmp": "written",
        "figures/table-saved.csv": "saved",
    }
    assert service.content(run.id, "model.pt") == bytes(range(256))
    assert service.content(run.id, "table.csv") == b"1,2\n3,4\n" == service.content(run.id, "figures/table-saved.csv")
    paths = service.client.fetch(run.id, tmp_path / "fetched")
    assert len(paths) == 6
    assert (tmp_path / "fetched/out/deep/naïve 🙂 #1?100%.txt").read_text() == "odd"
    assert run.artifacts == 6
    assert (tmp_path / "table.csv").read_text() == "1,2\n", "the run wrote into its author's own folder"


def test_files_over_the_limit_are_named(small_service: Service, tmp_path: Path) -> None:
    work = write(
        tmp_path,
        train__py="""
            import pathlib
            pathlib.Path("a-small.bin").write_bytes(bytes(1000))
            pathlib.Path("b-large.bin").write_bytes(bytes(99_001))
            pathlib.Path("c-small.bin").write_bytes(bytes(1000))
        """,
    )
    run = small_service.finish(work)
    assert run.state == "succeeded"
    assert set(small_service.artifacts(run.id)) == {"a-small.bin", "c-small.bin"}
    words = "b-large.bin has 96.7 KiB; of the 97.7 KiB that a run may leave 96.7 KiB are left."
    assert any(words in warning for warning in run.warnings), run.warnings


def test_a_saved_file_is_there_before_the_end(service: Service, tmp_path: Path) -> None:
    work = write(
        tmp_path,
        train__py="""
            import time, atelier
            job = atelier.current_run()
            for n in range(2):
                with open("plot.txt", "w") as file:
                    file.write(f"version {n}")
                job.save("plot.txt")
            while not job.should_stop():
                time.sleep(0.05)
        """,
    )
    run_id = service.submit(work)
    wait_for(lambda: "plot.txt" in service.artifacts(run_id), "the saved file")
    wait_for(lambda: service.content(run_id, "plot.txt") == b"version 1", "its second version")
    service.client.cancel(run_id)
    service.wait(run_id)
    assert service.content(run_id, "plot.txt") == b"version 1"


@pytest.mark.parametrize(
    "path",
    [
        "../run.json",
        "..%2frun.json",
        "%2e%2e/run.json",
        "%2e%2e%2f%2e%2e%2fetc/passwd",
        "/etc/passwd",
        "a/../../run.json",
        "x%00.txt",
        "..\\run.json",
        "nothing.txt",
        "kept.txt/",
        "KEPT.TXT",
        "%FF",
    ],
)
def test_no_path_leads_out_of_the_artifacts(service: Service, kept_file: str, path: str) -> None:
    answer = service.get(f"/runs/{kept_file}/artifacts/{path}")
    assert answer.status_code in {404, 422}, answer.text
    assert set(answer.json()["error"]) == {"code", "message", "detail", "hint"}


@pytest.fixture(scope="module")
def kept_file(service: Service, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run that left ``kept.txt`` of 10 bytes."""
    work = write(tmp_path_factory.mktemp("kept"), train__py="open('kept.txt', 'w').write('0123456789')")
    return service.finish(work).id


def test_a_file_is_sent_so_that_no_browser_renders_it(service: Service, kept_file: str) -> None:
    answer = service.get(f"/runs/{kept_file}/artifacts/kept.txt")
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''kept.txt"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("wanted", "status", "content"),
    [
        ("bytes=0-3", 206, b"0123"),
        ("bytes=4-", 206, b"456789"),
        ("bytes=8-99", 206, b"89"),
        ("bytes=0-9", 200, b"0123456789"),
        ("bytes=10-", 422, None),
        ("bytes=5-2", 422, None),
        ("bytes=x", 200, b"0123456789"),
        ("bytes=0-1,3-4", 200, b"0123456789"),
    ],
)
def test_a_download_can_go_on_where_it_was_cut(
    service: Service, kept_file: str, wanted: str, status: int, content: bytes | None
) -> None:
    answer = service.get(f"/runs/{kept_file}/artifacts/kept.txt", headers={"Range": wanted})
    assert answer.status_code == status
    if content is not None:
        assert answer.content == content
        assert answer.headers["content-length"] == str(len(content))


def test_a_removed_run_leaves_nothing(service: Service, tmp_path: Path) -> None:
    run = service.finish(write(tmp_path, train__py="open('kept.txt', 'w').write('x')\nprint('x')"))
    blobs = service.home / "blobs/runs" / run.id

    def record() -> tuple[str, str, int]:
        written = json.loads((blobs / "run.json").read_text())
        return written["id"], written["state"], written["version"]

    wait_for(lambda: record() == (run.id, "succeeded", 1), "the record on disk to be that of the ended run")
    assert (blobs / "attempts/1/log.txt").read_text() == "x\n"
    assert json.loads((blobs / "attempts/1/result.json").read_text())["state"] == "succeeded"
    assert (blobs / "bundle.tar.zst").exists()
    assert list((blobs / "attempts/1").glob("log/*")) == []
    service.client.remove(run.id)
    assert not blobs.exists()
    for path in ("", "/log", "/artifacts", "/artifacts/kept.txt", "/metrics", "/notebook", "/bundle", "/events"):
        assert service.get(f"/runs/{run.id}{path}").status_code == 404, path


# -- letters that are none ----------------------------------------------------------------------------------------
def test_a_notebook_may_print_what_is_no_text(service: Service, tmp_path: Path) -> None:
    cells = (
        "print('half \\udcff a letter and \\x00 zero')",
        "'\\udcff\\x00'",
        "raise ValueError('bad \\ud800 \\x00 words')",
    )
    run = service.finish(write(tmp_path, train__ipynb=notebook(*cells)))
    assert (run.state, run.reason) == ("failed", "code_error"), run.message
    assert "(cell 3" in run.message
    assert "a letter and" in service.log(run.id)
    assert service.get(f"/runs/{run.id}/notebook").status_code == 200


def test_an_error_may_hold_what_is_no_text(service: Service, tmp_path: Path) -> None:
    run = service.finish(
        write(tmp_path, train__py="raise ValueError('bad \\ud800 \\x00 \\x1b[31m words' + 'x' * 10_000)")
    )
    assert (run.state, run.reason) == ("failed", "code_error")
    assert run.message.startswith("ValueError: bad ")
    assert len(run.message) < 1000
    assert math.isfinite(run.attempts[0].exit_code or 0)
