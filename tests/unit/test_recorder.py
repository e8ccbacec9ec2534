"""The recorder: nothing logged is lost, nothing it does stops a training, checkpoints are whole or not there."""

from __future__ import annotations

import copy
import errno
import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atelier.errors import InternalError, RefusedInput
from atelier.recorder import Recorder, current_run
from atelier.recorder.recording import KEPT_LOCAL_CHECKPOINTS
from atelier.recorder.spool import MANIFEST, damage, publish


@pytest.fixture
def job(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path / "run", run_id="r-aaaaaaaaaa", in_run=True)


def lines(job: Recorder, name: str) -> list[dict[str, Any]]:
    path = job.folder / "spool" / name
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def events(job: Recorder, kind: str) -> list[dict[str, Any]]:
    return [event for event in lines(job, "events.jsonl") if event["type"] == kind]


def refused(code: str, call: Callable[[], object]) -> None:
    with pytest.raises(RefusedInput) as caught:
        call()
    assert caught.value.code == code
    assert caught.value.hint


class Elsewhere:
    """A scalar of a framework that only knows ``float()``."""

    def __float__(self) -> float:
        return 0.5


class TestLog:
    def test_writes_whole_lines_as_the_agent_reads_them(self, job: Recorder) -> None:
        before = time.time()
        job.log(step=3, loss=0.21, accuracy=np.float32(0.5), count=7)
        job.log(**{"val/loss": Elsewhere(), 'ü "x"': True, "array": np.array([2.5])})
        first, second = lines(job, "metrics.jsonl")
        assert first["step"] == 3
        assert first["values"] == {"loss": 0.21, "accuracy": 0.5, "count": 7}
        assert before - 1 <= first["t"] <= time.time() + 1
        assert second["step"] is None
        assert second["values"] == {"val/loss": 0.5, 'ü "x"': 1.0, "array": 2.5}

    def test_every_double_comes_back_as_it_was(self, job: Recorder) -> None:
        values = [1e-320, 1.7976931348623157e308, 0.1 + 0.2, -0.0, 5e-324]
        for value in values:
            job.log(x=value)
        assert [
            math.copysign(line["values"]["x"], line["values"]["x"]) for line in lines(job, "metrics.jsonl")
        ] == values

    def test_not_finite_is_kept_and_warned_of_once(self, job: Recorder) -> None:
        for step in range(3):
            job.log(step=step, loss=float("nan"), gain=np.inf, low=-np.inf)
        assert lines(job, "metrics.jsonl")[2]["values"] == {"loss": "nan", "gain": "inf", "low": "-inf"}
        assert [event["text"] for event in events(job, "warning")] == [
            "loss is nan at step 0.",
            "gain is inf at step 0.",
            "low is -inf at step 0.",
        ]
        assert math.isnan(job.metrics()[0]["value"])

    @pytest.mark.parametrize("value", ["0.3", b"1", None, [1.0], {}, 1j, np.zeros(2), np.array("x"), object(), 10**400])
    def test_refuses_what_is_no_number(self, job: Recorder, value: Any) -> None:
        refused("bad_metric", lambda: job.log(loss=value))
        assert lines(job, "metrics.jsonl") == []

    @pytest.mark.parametrize("name", ["", "x" * 201, "a\nb", "a\0b", "\ud800"])
    def test_refuses_bad_names(self, job: Recorder, name: str) -> None:
        refused("bad_metric", lambda: job.log(**{name: 1.0}))

    def test_steps(self, job: Recorder) -> None:
        for step in (np.int64(4), 4.0, True):
            job.log(step=step, x=1)
        assert [line["step"] for line in lines(job, "metrics.jsonl")] == [4, 4, 1]
        for wrong in ("3", 0.5, 2**63, -(2**63), np.zeros(2), float("nan"), float("inf")):
            refused("bad_metric", lambda step=wrong: job.log(step=step, x=1))
        refused("bad_metric", lambda: job.log(step=1))

    def test_threads_and_forked_children_mix_no_lines(self, job: Recorder) -> None:
        job.log(step=-1, source=0)
        children = []
        for source in range(3):
            pid = os.fork()
            if pid == 0:
                for step in range(500):
                    job.log(step=step, source=source, ballast=1 / 3)
                os._exit(0)
            children.append(pid)
        threads = [
            threading.Thread(target=lambda number=n: [job.log(step=s, source=number) for s in range(500)])
            for n in range(3, 6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        for pid in children:
            assert os.waitpid(pid, 0)[1] == 0
        found = sorted((int(line["values"]["source"]), line["step"]) for line in lines(job, "metrics.jsonl")[1:])
        assert found == [(source, step) for source in range(6) for step in range(500)]

    def test_what_was_logged_before_kill_9_is_there(self, tmp_path: Path) -> None:
        program = (
            "import atelier, os, signal\njob = atelier.current_run()\n"
            "for step in range(1000): job.log(step=step, loss=0.1)\n"
            "os.kill(os.getpid(), signal.SIGKILL)"
        )
        environment = {**os.environ, "ATELIER_RUN_DIR": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", program], env=environment, timeout=30, check=False)
        assert done.returncode == -signal.SIGKILL
        found = (tmp_path / "spool/metrics.jsonl").read_bytes().splitlines()
        assert [json.loads(line)["step"] for line in found] == list(range(1000))

    def test_full_disk_costs_points_and_no_training(self, job: Recorder, capfd: pytest.CaptureFixture[str]) -> None:
        (job.folder / "spool").mkdir(parents=True)
        for name in ("metrics.jsonl", "events.jsonl"):
            (job.folder / "spool" / name).symlink_to("/dev/full")
        for step in range(50):
            job.log(step=step, loss=float("nan"))
            job.progress(step, 50)
        said = capfd.readouterr().err
        assert said.count("metrics.jsonl") == 1
        assert "No space left" in said
        assert job._metrics.lost_lines == 50

    def test_folder_that_cannot_be_made_costs_points_and_no_training(self, tmp_path: Path) -> None:
        (tmp_path / "run").write_text("a file is in the way")
        job = Recorder(tmp_path / "run", run_id="r-a", in_run=True)
        job.log(loss=1.0)
        job.progress(1, 2)
        assert not job.should_stop()
        assert job._metrics.lost_lines == 1

    def test_line_torn_by_a_full_disk_does_not_spoil_the_next(self, tmp_path: Path) -> None:
        program = """
import json, os, resource, signal
from pathlib import Path
from atelier.recorder import Recorder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
job = Recorder(Path("run"), run_id="r", in_run=True)
job.log(step=1, loss=0.5)
size = os.path.getsize("run/spool/metrics.jsonl")
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, resource.RLIM_INFINITY))
job.log(step=2, loss=0.5)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
job.log(step=3, loss=0.5)
print([row["step"] for row in job.metrics()])
"""
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
        )
        assert done.stdout == "[1, 3]\n", done.stderr

    def test_costs_microseconds(self, job: Recorder) -> None:
        job.log(step=0, loss=0.1)
        best = min(_seconds_each(lambda step: job.log(step=step, loss=0.1)) for _ in range(5))
        assert best < 50e-6


def _seconds_each(call: Callable[[int], object], count: int = 2000) -> float:
    begin = time.perf_counter()
    for step in range(count):
        call(step)
    return (time.perf_counter() - begin) / count


class TestProgress:
    def test_writes_events(self, job: Recorder) -> None:
        job.progress(1, total=5)
        job.progress(np.float32(1.5))
        assert [(event["done"], event["total"]) for event in events(job, "progress")] == [(1, 5), (1.5, None)]

    @pytest.mark.parametrize(("done", "total"), [(-1, 5), (1, 0), (float("nan"), 5), (1, float("inf")), ("1", 5)])
    def test_refuses_what_is_no_progress(self, job: Recorder, done: Any, total: Any) -> None:
        with pytest.raises(RefusedInput):
            job.progress(done, total)

    def test_track_reports_begin_end_and_seldom_between(self, job: Recorder) -> None:
        assert sum(job.track(range(10_000))) == sum(range(10_000))
        told = [(event["done"], event["total"]) for event in events(job, "progress")]
        assert told[0] == (0, 10_000)
        assert told[-1] == (10_000, 10_000)
        assert len(told) < 50

    def test_track_of_what_has_no_length(self, job: Recorder) -> None:
        assert list(job.track(iter("ab"))) == ["a", "b"]
        assert list(job.track([])) == []
        assert [(event["done"], event["total"]) for event in events(job, "progress")] == [
            (0, None),
            (2, None),
            (0, None),
        ]


class TestCheckpoint:
    def test_file_and_folder_are_found_again(self, job: Recorder, tmp_path: Path) -> None:
        (tmp_path / "model.pt").write_bytes(b"weights")
        (tmp_path / "state/deep").mkdir(parents=True)
        (tmp_path / "state/deep/a").write_text("a")
        (tmp_path / "state/link").symlink_to("deep/a")
        made = job.checkpoint(tmp_path / "model.pt", step=3)
        other = job.checkpoint(str(tmp_path / "state"), step=np.int64(4))
        assert made == job.folder / "spool/checkpoints/step-00000003"
        assert [(event["step"], event["folder"]) for event in events(job, "checkpoint")] == [
            (3, "checkpoints/step-00000003"),
            (4, "checkpoints/step-00000004"),
        ]
        (tmp_path / "model.pt").write_bytes(b"changed")
        later = Recorder(tmp_path / "next", run_id="r", resume_from=made, in_run=True)
        assert later.resume_from == made
        assert (made / "model.pt").read_bytes() == b"weights"
        assert (other / "link").read_text() == "a"
        assert not (other / "link").is_symlink()

    def test_manifest_is_what_sha256sum_checks(self, job: Recorder, tmp_path: Path) -> None:
        (tmp_path / "a ü.bin").write_bytes(os.urandom(3000))
        made = job.checkpoint(tmp_path / "a ü.bin", step=0)
        done = subprocess.run(["sha256sum", "-c", MANIFEST], cwd=made, capture_output=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr

    def test_same_step_again_replaces_nothing_that_is_being_read(self, job: Recorder, tmp_path: Path) -> None:
        (tmp_path / "m").write_text("1")
        first = job.checkpoint(tmp_path / "m", step=1)
        (tmp_path / "m").write_text("2")
        second = job.checkpoint(tmp_path / "m", step=1)
        assert (first / "m").read_text() == "1"
        assert (second / "m").read_text() == "2"
        assert events(job, "checkpoint")[1]["folder"] == f"checkpoints/{second.name}"

    def test_a_checkpoint_of_a_checkpoint(self, job: Recorder, tmp_path: Path) -> None:
        (tmp_path / "m").write_text("1")
        made = job.checkpoint(tmp_path / "m", step=1)
        assert damage(job.checkpoint(made, step=2)) == ""

    def test_refuses_what_can_be_none(self, job: Recorder, tmp_path: Path) -> None:
        refused("no_such_file", lambda: job.checkpoint(tmp_path / "nothing", step=1))
        (tmp_path / "empty/deep").mkdir(parents=True)
        refused("no_such_file", lambda: job.checkpoint(tmp_path / "empty", step=1))
        os.mkfifo(tmp_path / "pipe")
        refused("not_a_file", lambda: job.checkpoint(tmp_path / "pipe", step=1))
        (tmp_path / "d").mkdir()
        (tmp_path / "d/dead").symlink_to("nowhere")
        refused("not_a_file", lambda: job.checkpoint(tmp_path / "d", step=1))
        (tmp_path / "m").touch()
        refused("bad_metric", lambda: job.checkpoint(tmp_path / "m", step=-1))
        refused("bad_metric", lambda: job.checkpoint(tmp_path / "m", step="1"))  # type: ignore[arg-type]
        assert not list(job.folder.rglob(".tmp-*"))

    def test_damaged_checkpoints_are_passed_over_with_a_word(self, job: Recorder, tmp_path: Path) -> None:
        (tmp_path / "m").write_bytes(b"x" * 1000)
        made = [job.checkpoint(tmp_path / "m", step=step) for step in (8, 9, 10, 11, 12)]
        (made[4] / "m").write_bytes(b"x" * 999)
        (made[3] / "m").unlink()
        (made[2] / MANIFEST).unlink()
        (made[1] / MANIFEST).write_text("../../etc/passwd\n")
        later = Recorder(tmp_path / "next", run_id="r", resume_from=made[4], in_run=True)
        assert later.resume_from == made[0]
        told = [event["text"] for event in events(later, "warning")]
        assert [name.split()[2] for name in told] == [path.name for path in reversed(made[1:])]
        for path in made:
            shutil.rmtree(path)
        assert later.resume_from == made[0], "it was checked once"
        assert Recorder(tmp_path / "other", run_id="r", resume_from=made[4], in_run=True).resume_from is None

    @pytest.mark.parametrize(
        ("harm", "told"),
        [
            (lambda made: (made / "m").write_bytes(b"x" * 999), "m differs from its manifest"),
            (lambda made: (made / "m").write_bytes(b"x" * 999 + b"y"), "m differs from its manifest"),
            (lambda made: (made / "m").write_bytes(b"x" * 1001), "m differs from its manifest"),
            (lambda made: (made / "m").unlink(), "m is missing"),
            (lambda made: (made / "m").rename(made / "n"), "m is missing"),
            (lambda made: ((made / "m").unlink(), (made / "m").mkdir()), "m is missing"),
            (lambda made: ((made / "m").unlink(), (made / "m").symlink_to("/etc/passwd")), "m can't be read"),
            (lambda made: (made / "more").write_bytes(b"x"), "more is not in its manifest"),
            (lambda made: os.mkfifo(made / "pipe"), "pipe can't be read"),
            (lambda made: (made / MANIFEST).unlink(), "it has no manifest"),
            (lambda made: (made / MANIFEST).write_bytes(b""), "its manifest is damaged"),
            (lambda made: (made / MANIFEST).write_bytes(os.urandom(80)), "its manifest is damaged"),
            (lambda made: os.truncate(made / MANIFEST, 40), "its manifest is damaged"),
            (lambda made: os.truncate(made / MANIFEST, 73), "deep/a is not in its manifest"),
        ],
    )  # fmt: skip
    def test_every_kind_of_damage_is_seen(
        self, job: Recorder, tmp_path: Path, harm: Callable[[Path], object], told: str
    ) -> None:
        (tmp_path / "state/deep").mkdir(parents=True)
        (tmp_path / "state/m").write_bytes(b"x" * 1000)
        (tmp_path / "state/deep/a").write_text("a")
        (tmp_path / "state/a\x85b\u2028").write_text("b")
        whole, made = (job.checkpoint(tmp_path / "state", step=step) for step in (1, 2))
        assert damage(made) == ""
        harm(made)
        assert damage(made).startswith(told)
        assert Recorder(tmp_path / "next", run_id="r", resume_from=made, in_run=True).resume_from == whole

    def test_a_checkpoint_that_nobody_would_hear_of_is_an_error(self, job: Recorder, tmp_path: Path) -> None:
        (tmp_path / "m").write_text("1")
        whole = job.checkpoint(tmp_path / "m", step=1)
        (job.folder / "spool/events.jsonl").unlink()
        (job.folder / "spool/events.jsonl").symlink_to("/dev/full")
        full = Recorder(job.folder, run_id="r-aaaaaaaaaa", in_run=True)
        with pytest.raises(OSError, match="No space left"):
            full.checkpoint(tmp_path / "m", step=2)
        assert [path for path in whole.parent.iterdir() if path != whole] == []
        assert damage(whole) == ""

    def test_kill_9_leaves_whole_checkpoints_or_none(self, tmp_path: Path) -> None:
        (tmp_path / "big").write_bytes(os.urandom(1 << 20) * 8)
        program = (
            "import atelier, sys\njob = atelier.current_run()\n"
            "for step in range(10_000):\n    job.checkpoint('big', step=step); print(step, flush=True)"
        )
        environment = {**os.environ, "ATELIER_RUN_DIR": str(tmp_path / "run")}
        for delay_s in (0.02, 0.05, 0.08):
            worker = subprocess.Popen(
                [sys.executable, "-c", program], env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True
            )
            assert worker.stdout is not None
            with worker.stdout:
                assert worker.stdout.readline() == "0\n"
                time.sleep(delay_s)
                worker.kill()
                returned = worker.stdout.read().split()
            worker.wait(10)
            folder = tmp_path / "run/spool/checkpoints"
            found = sorted(folder.glob("step-*"))
            assert len(found) >= len(returned) + 1
            assert [damage(path) for path in found] == [""] * len(found)
            shutil.rmtree(tmp_path / "run")

    def test_full_disk_says_so_and_leaves_nothing(self, tmp_path: Path) -> None:
        program = """
import resource, signal
from pathlib import Path
from atelier.recorder import Recorder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
job = Recorder(Path("run"), run_id="r", in_run=True)
Path("m").write_bytes(bytes(1 << 20))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, resource.RLIM_INFINITY))
try:
    job.checkpoint("m", step=1)
except OSError as problem:
    print(list(Path("run/spool/checkpoints").iterdir()))
"""
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
        )
        assert done.stdout == "[]\n", done.stderr


class TestFiles:
    def test_save(self, job: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "plots").mkdir()
        for name in ("plots/a.png", "plots/b.png", "c.txt"):
            (tmp_path / name).write_text(name)
        job.save("c.txt")
        job.save("plots/a.png")
        job.save(tmp_path / "plots/b.png")
        job.save("c.txt", name="deep/ü 😀.txt")
        job.save("plots", name="all")
        assert [event["path"] for event in events(job, "artifact")] == [
            "c.txt",
            "plots/a.png",
            "b.png",
            "deep/ü 😀.txt",
            "all/a.png",
            "all/b.png",
        ]
        kept = job.folder / "spool/artifacts"
        assert (kept / "deep/ü 😀.txt").read_text() == "c.txt"
        (tmp_path / "c.txt").write_text("new")
        job.save("c.txt")
        assert (kept / "c.txt").read_text() == "new"
        assert not list(job.folder.rglob(".tmp-*"))

    @pytest.mark.parametrize("name", ["../x", "/x", "a/../x", "a//b", "a\nb", "x" * 300, ".", "\0"])
    def test_save_refuses_names_that_lead_away(self, job: Recorder, tmp_path: Path, name: str) -> None:
        (tmp_path / "f").touch()
        refused("bad_name", lambda: job.save(tmp_path / "f", name=name))

    @pytest.mark.parametrize("kind", ["artifacts", "models"])
    def test_a_file_that_nobody_would_hear_of_is_an_error(self, job: Recorder, tmp_path: Path, kind: str) -> None:
        (tmp_path / "package").mkdir()
        (tmp_path / "package/m").write_text("1")
        (job.folder / "spool").mkdir(parents=True)
        (job.folder / "spool/events.jsonl").symlink_to("/dev/full")
        keep: dict[str, Callable[[], Path]] = {
            "artifacts": lambda: job.save(tmp_path / "package/m"),
            "models": lambda: job.add_model("m", tmp_path / "package"),
        }
        with pytest.raises(OSError, match="No space left on device; 'm' is not kept") as told:
            keep[kind]()
        assert told.value.errno == errno.ENOSPC
        assert [path.name for path in (job.folder / "spool" / kind).iterdir()] == []
        assert not list(job.folder.rglob(".tmp-*"))

    def test_a_save_that_fails_leaves_the_earlier_one(self, job: Recorder, tmp_path: Path) -> None:
        (tmp_path / "m").write_text("1")
        kept = job.save(tmp_path / "m")
        (job.folder / "spool/events.jsonl").unlink()
        (job.folder / "spool/events.jsonl").symlink_to("/dev/full")
        (tmp_path / "m").write_text("2")
        with pytest.raises(OSError, match="No space left"):
            Recorder(job.folder, run_id="r-aaaaaaaaaa", in_run=True).save(tmp_path / "m")
        assert kept.read_text() == "1"
        assert not list(job.folder.rglob(".tmp-*"))

    def test_save_of_nothing(self, job: Recorder, tmp_path: Path) -> None:
        refused("no_such_file", lambda: job.save(tmp_path / "nothing"))

    def test_add_model(self, job: Recorder, tmp_path: Path) -> None:
        (tmp_path / "package").mkdir()
        (tmp_path / "package/model.json").write_text("{}")
        made = job.add_model("digits", tmp_path / "package")
        again = job.add_model("digits", tmp_path / "package")
        assert [(event["name"], event["folder"]) for event in events(job, "model")] == [
            ("digits", "models/digits"),
            ("digits", f"models/{again.name}"),
        ]
        assert (made / "model.json").read_text() == "{}"
        refused("bad_name", lambda: job.add_model("a/b", tmp_path / "package"))
        refused("bad_name", lambda: job.add_model("a", tmp_path / "package/model.json"))


class TestStop:
    def test_reads_what_the_agent_writes(self, job: Recorder) -> None:
        assert not job.should_stop()
        spool = job.folder / "spool"
        spool.mkdir(parents=True)
        for stop in (None, "cancel", "preempt"):
            (spool / "next").write_text(json.dumps({"stop": stop}))
            os.replace(spool / "next", spool / "control.json")
            assert job.stop_reason == stop
            assert job.should_stop() == (stop is not None)
        (spool / "control.json").write_text("not json")
        assert job.stop_reason == "preempt"
        assert len(events(job, "warning")) == 1

    def test_is_cheap(self, job: Recorder) -> None:
        assert min(_seconds_each(lambda _: job.should_stop()) for _ in range(5)) < 50e-6


class TestEnvironment:
    def test_copy_in_another_process_records_to_the_same_place(self, job: Recorder, tmp_path: Path) -> None:
        (tmp_path / "job").write_bytes(pickle.dumps(job))
        program = f"import pickle; pickle.loads(open({str(tmp_path / 'job')!r}, 'rb').read()).log(step=7, x=1)"
        subprocess.run([sys.executable, "-c", program], cwd=tmp_path, timeout=30, check=True)
        assert [row["step"] for row in job.metrics()] == [7]
        assert copy.deepcopy(job).id == job.id

    def test_in_a_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "params.json").write_text('{"epochs": 5}')
        for name, value in {
            "ATELIER_RUN_DIR": tmp_path / "a",
            "ATELIER_RUN_ID": "r-abcdefghij",
            "ATELIER_ATTEMPT": "2",
            "ATELIER_PARAMS": tmp_path / "params.json",
        }.items():
            monkeypatch.setenv(name, str(value))
        job = current_run()
        assert (job.id, job.attempt, job.params, job.in_run) == ("r-abcdefghij", 2, {"epochs": 5}, True)
        assert job.resume_from is None
        assert current_run() is job
        job.params["epochs"] = 6
        assert job.params == {"epochs": 5}

    def test_unreadable_params(self, tmp_path: Path) -> None:
        with pytest.raises(InternalError):
            Recorder.from_environment({"ATELIER_RUN_DIR": str(tmp_path), "ATELIER_PARAMS": str(tmp_path / "none")})

    def test_outside_a_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        job = Recorder.from_environment({})
        assert (job.in_run, job.params, job.resume_from, job.should_stop()) == (False, {}, None, False)
        assert not (tmp_path / ".atelier").exists(), "nothing is written before something is recorded"
        job.log(step=1, loss=0.5)
        (tmp_path / "m").write_text("m")
        for step in range(KEPT_LOCAL_CHECKPOINTS + 2):
            job.checkpoint("m", step=step)
        (folder,) = (tmp_path / ".atelier").glob("*-*")
        assert folder.name == job.id
        assert (tmp_path / ".atelier/.gitignore").read_text() == "*\n"
        assert len(list((folder / "spool/checkpoints").iterdir())) == KEPT_LOCAL_CHECKPOINTS
        assert [(row["name"], row["step"], row["value"]) for row in job.metrics()] == [("loss", 1, 0.5)]

    def test_shows_itself_without_a_hole_for_html(self, tmp_path: Path) -> None:
        job = Recorder(tmp_path / "<b>", run_id="<script>")
        job.log(**{"<img src=x>": 1.0})
        job.progress(1, 2)
        shown = job._repr_html_()
        assert "<script>" not in shown
        assert "<img" not in shown
        assert "1 of 2" in shown

    def test_import_is_light(self) -> None:
        program = (
            "import sys; import atelier.recorder\n"
            "print([name for name in ('pydantic', 'httpx', 'numpy', 'torch', 'asyncio') if name in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
        assert done.stdout == "[]\n"


def test_publish_leaves_nothing_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/secret").touch()
    (tmp_path / "d/dead").symlink_to("nowhere")
    with pytest.raises(RefusedInput):
        publish(tmp_path / "d", tmp_path / "out/x")
    assert list(tmp_path.rglob("out/*")) == []
