"""A retry is a new attempt that goes on from the last whole checkpoint, and the old one can do nothing any more."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import httpx
import pytest
from fastapi.routing import APIRoute

from atelier.records import Artifact
from atelier.service.attempts import artifact_key
from atelier.service.handlers.agent import router as agent_routes
from atelier.service.store.streams import STREAMS
from atelier.wire import API
from tests.cli_driver import wait_for
from tests.service_driver import Service, write

TRAIN = """
    import json, os, pathlib, sys, time, atelier
    job = atelier.current_run()
    start = 0
    if job.resume_from is not None:
        start = json.loads((job.resume_from / "state.json").read_text())["step"]
        print("resumed from", job.resume_from.name, "with", sorted(path.name for path in job.resume_from.iterdir()))
    for step in range(start + 1, 4):
        folder = pathlib.Path(f"state-{step}"); folder.mkdir()
        (folder / "state.json").write_text(json.dumps({"step": step}))
        job.checkpoint(folder, step=step)
        print("attempt", job.attempt, "step", step, flush=True)
        if job.attempt == 1 and step == 2:
            while not pathlib.Path(GATE).exists():
                time.sleep(0.02)
            os.kill(os.getpid(), 9)
"""


def begin(service: Service, folder: Path, code: str = TRAIN, **spec: object) -> str:
    """A run that waits, in its second step, for the file ``gate`` in its author's folder."""
    work = write(folder, train__py=code.replace("GATE", repr(str(folder / "gate"))))
    run_id = service.submit(work, retries=1, **spec)
    service.wait_log(run_id, "step 2")
    return run_id


def test_a_killed_run_goes_on_from_its_checkpoint(service: Service, tmp_path: Path) -> None:
    run_id = begin(service, tmp_path)
    (tmp_path / "gate").touch()
    run = service.wait(run_id)
    assert run.state == "succeeded", service.log(run_id)
    assert [(attempt.n, attempt.state, attempt.reason) for attempt in run.attempts] == [
        (1, "failed", "killed"),
        (2, "succeeded", None),
    ]
    assert service.log(run_id, 1) == "attempt 1 step 1\nattempt 1 step 2\n"
    resumed = "resumed from step-0000000002 with ['MANIFEST.sha256', 'state.json']\n"
    assert service.log(run_id, 2) == resumed + "attempt 2 step 3\n" == service.log(run_id)
    assert service.run(run_id).attempts[0].log_size_bytes == len(service.log(run_id, 1))
    blobs = service.home / "blobs/runs" / run_id
    assert [json.loads((blobs / f"attempts/{n}/result.json").read_text())["state"] for n in (1, 2)] == [
        "failed",
        "succeeded",
    ]


def test_only_the_last_three_checkpoints_keep_their_files(service: Service, tmp_path: Path) -> None:
    code = TRAIN.replace("range(start + 1, 4)", "range(start + 1, 7)")
    run_id = begin(service, tmp_path, code)
    checkpoints = service.home / "blobs/runs" / run_id / "checkpoints"
    wait_for((checkpoints / "1-step-0000000002/MANIFEST.sha256").exists, "the checkpoint of step 2")
    (tmp_path / "gate").touch()
    assert service.wait(run_id).state == "succeeded", service.log(run_id)
    assert sorted(path.name for path in checkpoints.iterdir()) == [f"2-step-000000000{step}" for step in (4, 5, 6)]


def test_retries_end(service: Service, tmp_path: Path) -> None:
    run = service.finish(
        write(tmp_path, train__py="import atelier\nprint(atelier.current_run().attempt)\n1 / 0"), retries=1
    )
    assert (run.state, run.reason) == ("failed", "code_error")
    assert [service.log(run.id, attempt.n).splitlines()[0] for attempt in run.attempts] == ["1", "2"]
    assert run.attempts[0].ended_at is not None
    waited_s = (run.attempts[1].created_at - run.attempts[0].ended_at).total_seconds()
    assert 0.9 < waited_s < 15


@pytest.mark.parametrize(
    ("retry_on", "tries"), [(["import_error", "killed"], 2), (["any"], 2), (["killed"], 1), (None, 1)]
)
def test_a_user_says_after_what_a_run_is_tried_again(
    service: Service, tmp_path: Path, retry_on: list[str] | None, tries: int
) -> None:
    work = write(tmp_path, train__py="import no_such_module")
    asked = {} if retry_on is None else {"retry_on": retry_on}
    run = service.finish(work, retries=1, **asked)
    assert (run.state, run.reason) == ("failed", "import_error")
    assert [attempt.reason for attempt in run.attempts] == ["import_error"] * tries


def test_what_gives_its_place_away_goes_on(service: Service, tmp_path: Path) -> None:
    """An agent that is told to leave passes it on to code that asks, and the run comes again without retries."""
    work = write(
        tmp_path,
        train__py="""
            import time, atelier
            job = atelier.current_run()
            job.should_stop()
            print("begun", flush=True)
            while job.attempt == 1 and not job.should_stop():
                time.sleep(0.02)
            print(job.stop_reason)
        """,
    )
    run_id = service.submit(work)
    service.wait_log(run_id, "begun")
    for pid in service.agents(run_id):
        os.kill(pid, signal.SIGTERM)
    run = service.wait(run_id)
    assert run.state == "succeeded"
    assert [(attempt.state, attempt.reason) for attempt in run.attempts] == [
        ("preempted", "preempted"),
        ("succeeded", None),
    ]
    assert service.log(run_id, 1) == "begun\npreempt\n"


def test_all_attempts_share_one_time_limit(service: Service, tmp_path: Path) -> None:
    code = "import time, atelier\ntime.sleep(1.5 if atelier.current_run().attempt == 1 else 60)\n1 / 0"
    run = service.finish(write(tmp_path, train__py=code), retries=3, timeout_s=3)
    assert [attempt.state for attempt in run.attempts] == ["failed", "timed_out"]
    assert run.attempts[1].started_at is not None
    assert run.attempts[1].ended_at is not None
    assert (run.attempts[1].ended_at - run.attempts[1].started_at).total_seconds() < 2.9


def test_what_an_attempt_left_bars_no_file_of_the_next(service: Service, tmp_path: Path) -> None:
    code = """
        import os, pathlib, sys, atelier
        if atelier.current_run().attempt == 1:
            pathlib.Path("out").write_text("half")
            pathlib.Path("first").write_text("of 1")
            pathlib.Path("both").write_text("of 1")
            os.kill(os.getpid(), 9)
        pathlib.Path("out").mkdir()
        pathlib.Path("out/model.pt").write_text("whole")
        pathlib.Path("both").write_text("of 2")
    """
    run = service.finish(write(tmp_path, train__py=code), retries=1)
    assert (run.state, run.warnings, len(run.attempts)) == ("succeeded", [], 2), service.log(run.id)
    kept = {path: (each["attempt"], service.content(run.id, path)) for path, each in service.artifacts(run.id).items()}
    assert kept == {"out/model.pt": (2, b"whole"), "first": (1, b"of 1"), "both": (2, b"of 2")}
    folder = service.home / "blobs/runs" / run.id / "artifacts"
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    rows = map(Artifact.model_validate, service.artifacts(run.id).values())
    keys = {artifact_key(run.id, row.attempt, row).split("/artifacts/")[1] for row in rows}
    assert files == keys, "bytes of no artifact stay on the disk"


def test_a_saved_file_and_a_folder_of_its_name_are_told_apart(service: Service, tmp_path: Path) -> None:
    code = """
        import pathlib, time, atelier
        pathlib.Path("notes.txt").write_text("saved")
        atelier.current_run().save("notes.txt", name="out")
        while not pathlib.Path(GATE).exists():
            time.sleep(0.02)
        pathlib.Path("out").mkdir()
        pathlib.Path("out/model.pt").write_text("written")
    """
    gate = tmp_path / "gate"
    run_id = service.submit(write(tmp_path / "code", train__py=code.replace("GATE", repr(str(gate)))))
    wait_for(lambda: "out" in service.artifacts(run_id), "the saved file to be kept")
    gate.touch()
    run = service.wait(run_id)
    assert run.state == "succeeded", service.log(run_id)
    assert {path: service.content(run_id, path) for path in service.artifacts(run_id)} == {
        "out": b"saved",
        "notes.txt": b"saved",
    }
    told = [warning for warning in run.warnings if "out/model.pt" in warning]
    assert len(told) == 1, run.warnings
    assert "both be kept" in told[0]


# -- tokens -------------------------------------------------------------------------------------------------------
def agent_calls() -> dict[str, tuple[str, str, dict[str, object]]]:
    """Everything an agent may call: name → method, path, options."""
    file = {"path": "x.txt", "size_bytes": 1, "sha256": "0" * 64, "kind": "written"}
    upload = {name: file[name] for name in ("path", "size_bytes", "sha256")}
    return {
        "orders": ("GET", "/orders", {}),
        "delivery": ("GET", "/delivery", {}),
        "started": ("POST", "/started", {"json": {}}),
        "heartbeat": ("POST", "/heartbeat", {"json": {}}),
        "log": ("PUT", "/streams/log?offset=0", {"content": b"forged"}),
        "metrics": ("PUT", "/streams/metrics?offset=0", {"content": b"{}\n"}),
        "place": ("POST", "/artifacts/place", {"json": file}),
        "artifact": ("POST", "/artifacts", {"json": file}),
        "checkpoint place": ("POST", "/checkpoints/place?step=9&path=x", {}),
        "checkpoint": ("POST", "/checkpoints", {"json": {"step": 9, "files": []}}),
        "upload": ("POST", "/uploads/place", {"json": upload}),
        "model": ("POST", "/models", {"json": {"name": "forged", "card": {}, "files": [upload]}}),
        "ended": ("POST", "/ended", {"json": {}}),
        "finish": ("POST", "/finish", {"json": {"state": "succeeded"}}),
    }


def test_all_that_an_agent_may_call_is_tried_below() -> None:
    """A new route must be tried with an old token, too."""
    known = {(method, f"/agent{path.partition('?')[0]}") for method, path, _ in agent_calls().values()}
    open_to_agents = {
        (method, route.path.replace("{stream}", stream))
        for route in agent_routes.routes
        if isinstance(route, APIRoute)
        for method in route.methods
        for stream in STREAMS
    }
    assert known == open_to_agents


def call(service: Service, name: str, authorization: str) -> httpx.Response:
    """Call as an agent does."""
    method, path, options = agent_calls()[name]
    with service.http as http:
        headers = {"Authorization": authorization}
        return http.request(method, f"{API}/agent{path}", headers=headers, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def replaced(service: Service, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A run in its second attempt, and the token of its first."""
    folder = tmp_path_factory.mktemp("tokens")
    code = (
        TRAIN.replace("os.kill(os.getpid(), 9)", "sys.exit(1)") + "\n    if job.attempt == 2:\n        time.sleep(60)\n"
    )
    run_id = begin(service, folder, code)
    token = (service.attempt_folder(run_id) / "token").read_text()
    (folder / "gate").touch()
    service.wait_log(run_id, "attempt 2 step 3")
    return run_id, token


@pytest.mark.parametrize("name", agent_calls())
def test_an_old_attempts_token_is_good_for_nothing(service: Service, replaced: tuple[str, str], name: str) -> None:
    run_id, token = replaced
    before = service.run(run_id)
    answer = call(service, name, f"run {token}")
    if name == "finish":
        assert answer.status_code in {200, 409}
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "stale_attempt"), answer.text
    after = service.run(run_id)
    assert (after.state, after.attempts[0], after.artifacts) == (before.state, before.attempts[0], before.artifacts)
    assert service.log(run_id, 1) == "attempt 1 step 1\nattempt 1 step 2\n"
    result = json.loads((service.home / "blobs/runs" / run_id / "attempts/1/result.json").read_text())
    assert result["state"] == "failed", "an old attempt's token has rewritten its result"


@pytest.mark.parametrize("name", agent_calls())
def test_no_other_token_is_an_agents(service: Service, replaced: tuple[str, str], name: str) -> None:
    for authorization in (
        f"token {service.token}",
        f"run {service.token}",
        "run",
        "run " + "0" * 64,
        f"token {replaced[1]}",
        "",
    ):
        answer = call(service, name, authorization)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthenticated"), (
            authorization,
            answer.text,
        )


def test_an_agents_token_is_no_users(service: Service, replaced: tuple[str, str]) -> None:
    run_id = replaced[0]
    token = (service.attempt_folder(run_id, 2) / "token").read_text()
    with service.http as http:
        for scheme in ("run", "token", "bearer"):
            answer = http.get(f"{API}/runs/{run_id}", headers={"Authorization": f"{scheme} {token}"})
            assert answer.status_code == 401, scheme


def test_an_agents_token_is_in_no_environment(service: Service, replaced: tuple[str, str]) -> None:
    run_id = replaced[0]
    token = (service.attempt_folder(run_id, 2) / "token").read_bytes()
    family = service.of_attempt(run_id, 2)
    assert len(family) >= 2
    for pid in family:
        assert token not in Path(f"/proc/{pid}/environ").read_bytes()
        assert token not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert (service.attempt_folder(run_id, 2) / "token").stat().st_mode & 0o077 == 0
    database = b"".join(path.read_bytes() for path in (service.home / "db").iterdir())
    assert token not in database
