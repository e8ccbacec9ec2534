"""The service itself: one per home, found and left by others, private, and clear about what it refuses."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from atelier.agent.link import Link
from atelier.client import Address, Client
from atelier.client.address import live_address
from atelier.errors import RefusedInput
from atelier.hub.site import free_port
from atelier.service.feed import EVENT_NAMES
from atelier.wire import API, WIRE_VERSION
from tests.cli_driver import notebook, wait_for
from tests.service_driver import HOMES, Service, lives, service_over, write

PREFIX = "/services/atelier"
JSON = {"Content-Type": "application/json"}
WAIT = (
    "import pathlib, time\nprint('begun', flush=True)\nwhile not pathlib.Path(GATE).exists():\n    time.sleep(0.02)\n"
)


def waiting(folder: Path) -> Path:
    """A script that runs until the file ``gate`` lies beside it."""
    return write(folder, train__py=WAIT.replace("GATE", repr(str(folder / "gate"))))


# -- one per home -------------------------------------------------------------------------------------------------
def test_a_second_service_on_a_home_is_refused(service: Service) -> None:
    seconds = [service.spawn(*options) for options in ((), ("--embedded",), ("--port", str(free_port())))]
    for second in seconds:
        assert second.wait(timeout=30) == 1
        assert "error[already_serving]" in service.service_log
        assert str(service.home) in service.service_log
    assert service.get("/catalog").status_code == 200
    assert service.note["embedded"] is False


def test_state_is_private(service: Service) -> None:
    for name in ("run", "db", "blobs", "secrets", "secrets/service_user_token", "run/service.sock"):
        found = stat.S_IMODE((service.home / name).stat().st_mode)
        assert found & 0o077 == 0, (name, oct(found))
        assert found & 0o600 == 0o600
    assert len(service.token) == 64
    assert service.token not in (service.home / "run/service.json").read_text()


def test_an_embedded_service_ends_when_nobody_needs_it(tmp_path: Path) -> None:
    """A run that goes on keeps it, and one that waits too, of which no agent speaks to it."""
    with service_over(options=("--embedded",), more={"ATELIER_IDLE_S": "1", "ATELIER_TEST_GPUS": "GPU-1"}) as place:
        run_id = place.submit(waiting(tmp_path))
        place.wait_log(run_id, "begun")
        place.client.close()
        time.sleep(2.5)
        assert live_address(place.home) is not None, "it left a run alone"
        with place.http as http:
            assert http.put(f"{API}/leases/kernel-1", json={"machine": "gpu"}).status_code == 200
            queued = place.submit(write(tmp_path / "queued", train__py="1"), machine="gpu")
            (tmp_path / "gate").touch()
            assert place.wait(run_id).state == "succeeded"
        place.client.close()
        time.sleep(2.5)
        assert live_address(place.home) is not None, "it left a waiting run alone"
        with place.http as http:
            assert http.delete(f"{API}/leases/kernel-1").status_code == 204
            assert place.wait(queued).state == "succeeded"
        place.client.close()
        process = place.process
        assert process is not None
        assert process.wait(timeout=20) == 0
        assert not (place.home / "run/service.json").exists()
        assert live_address(place.home) is None


def test_an_embedded_service_stays_while_somebody_watches() -> None:
    with service_over(options=("--embedded",), more={"ATELIER_IDLE_S": "1"}) as place:
        process = place.process
        assert process is not None
        with place.http as http, http.stream("GET", f"{API}/events") as stream:
            lines = stream.iter_lines()
            assert next(lines) == ": atelier"
            time.sleep(3)
            assert live_address(place.home) is not None
        assert process.wait(timeout=20) == 0


def test_the_platforms_service_takes_over_from_an_embedded_one(tmp_path: Path) -> None:
    with service_over(options=("--embedded",)) as place:
        run_id = place.submit(waiting(tmp_path))
        place.wait_log(run_id, "begun")
        agents, embedded, port = place.agents(run_id), place.process, free_port()
        assert embedded is not None
        place.client.close()
        place.process = place.spawn("--port", str(port))
        assert embedded.wait(timeout=30) == 0
        wait_for(lambda: live_address(place.home), "the platform's service")
        assert (place.note["embedded"], place.note["url"]) == (False, f"http://127.0.0.1:{port}")
        assert place.agents(run_id) == agents
        late = place.spawn("--embedded")
        assert late.wait(timeout=30) == 1
        (tmp_path / "gate").touch()
        assert place.wait(run_id).state == "succeeded"
        assert place.log(run_id) == "begun\n"


def test_a_client_starts_an_embedded_service_and_finds_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    home = Path(tempfile.mkdtemp(prefix="atl-"))
    HOMES.append(home)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    with Client.find({"ATELIER_HOME": str(home)}) as first, Client.find({"ATELIER_HOME": str(home)}) as second:
        assert first.catalog()["user"] == second.catalog()["user"]
        note = json.loads((home / "run/service.json").read_text())
        assert note["embedded"] is True
    os.kill(note["pid"], signal.SIGTERM)
    wait_for(lambda: not lives(note["pid"]), "the embedded service to end")
    assert not (home / "run/service.json").exists()


# -- where it lies ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["d" * 120, "ein Ordner mit 100% #1 ? & ü"], ids=["long", "odd"])
def test_a_home_may_have_any_name(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    with service_over(home, more={"TMPDIR": tempfile.gettempdir()}) as place:
        path = Path(place.note["socket"])
        assert len(os.fsencode(path)) <= 107
        assert path.stat().st_mode & 0o077 == 0
        assert path.parent.stat().st_mode & 0o077 == 0
        assert (path.parent == home / "run") == (len(os.fsencode(home / "run/service.sock")) <= 100)
        run = place.finish(write(tmp_path / "code", train__py="open('kept ü.txt', 'w').write('kept')\nprint('done')"))
        assert (run.state, place.log(run.id)) == ("succeeded", "done\n")
        assert place.content(run.id, "kept ü.txt") == b"kept"
        if len(name) < 100:  # a kernel of one of the two is enough
            book = place.finish(write(tmp_path / "nb", train__ipynb=notebook("print('cell')")))
            assert book.state == "succeeded", book.message
        folder = f"artifacts/1/{place.artifacts(run.id)['kept ü.txt']['sha256']}"
        listing = place.get(f"/roots/runs/{run.id}/list", params={"path": folder}).json()
        assert [item["name"] for item in listing["items"]] == ["kept ü.txt"]
    assert not path.exists()


def start_refused(folder: Path, settings: str, *options: str) -> tuple[int, str]:
    """Exit code and words of a service that can't start."""
    (folder / "atelier.yaml").write_text(settings)
    argv = [sys.executable, "-m", "atelier.service", "--home", str(folder), *options]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=environ, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("limits:\n  runs_per_usr: 4\n", ["atelier.yaml:2", "runs_per_user"]),
        ("database: sqlite:////proc/nowhere/x.sqlite\n", ["/proc/nowhere"]),
        ("database: postgresql+psycopg://atelier:s3cret@/nowhere?host=/nonexistent\n", ["/nonexistent"]),
        ("blobs: nosuchscheme://bucket\n", ["nosuchscheme"]),
    ],
)
def test_wrong_settings_are_told_and_nothing_starts(tmp_path: Path, settings: str, words: list[str]) -> None:
    code, told = start_refused(tmp_path, settings)
    assert code in {1, 2}, told
    assert told.count("error[") == 1
    assert "Traceback" not in told
    for word in words:
        assert word in told
    assert "s3cret" not in told
    assert not (tmp_path / "run/service.json").exists()


def test_a_damaged_database_is_told_and_nothing_starts(tmp_path: Path) -> None:
    path = tmp_path / "db/atelier.sqlite"
    path.parent.mkdir()
    path.write_bytes(os.urandom(20000))
    code, told = start_refused(tmp_path, "")
    first, hint = told.splitlines()
    assert code == 1
    assert first == f"error[database_damaged]: The database file {path} is damaged (SQLite: file is not a database)."
    assert "backup" in hint
    assert not (tmp_path / "run/service.json").exists()


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, told = start_refused(tmp_path, "", "--port", str(port))
    assert code == 2
    assert "error[port_taken]" in told
    assert str(port) in told


# -- HTTP ---------------------------------------------------------------------------------------------------------
def assert_error(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "detail", "hint"}
    assert error["code"] == code
    assert error["message"]


def test_it_tells_that_it_lives_without_a_token(service: Service) -> None:
    with service.http as http:
        del http.headers["Authorization"]
        assert http.get(f"{PREFIX}/healthz").text == http.get(f"{PREFIX}/readyz").text == "ok"
        assert "atelier_runs" in http.get(f"{PREFIX}/metrics").text
        assert http.get(f"{PREFIX}/openapi.json").json()["info"]["title"] == "Atelier run service"


VERSIONS = ((WIRE_VERSION, True), (WIRE_VERSION - 1, True), (WIRE_VERSION + 1, False), ("x", False), ("", False))


@pytest.mark.parametrize("path", ["/catalog", "/agent/orders"])
def test_another_wire_version_is_refused(service: Service, path: str) -> None:
    """Before all else: who calls may be said otherwise in another version."""
    for version, is_known in VERSIONS:
        answer = service.get(path, headers={"Atelier-Wire": str(version)})
        if is_known:
            assert answer.status_code == 200 or answer.json()["error"]["code"] == "unauthenticated"
        else:
            assert_error(answer, 422, "wire_version")


def test_a_client_and_an_agent_of_another_wire_version_say_so(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atelier.wire.WIRE_VERSION", 7)
    monkeypatch.setattr("atelier.agent.link.WIRE_VERSION", 7)
    client = Client.at(Address("http://atelier", service.token, service.note["socket"]))
    link = Link({"socket": service.note["socket"]}, "token")
    for call in (client.catalog, lambda: link.get("/orders")):
        with pytest.raises(RefusedInput, match="wire version 1, and the caller 7") as caught:
            call()
        assert caught.value.code == "wire_version"
    client.close()
    link._drop()


SPEC: dict[str, Any] = {"work": {"kind": "script", "target": "train.py"}, "bundle": "0" * 64}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"nodes": 0}, "bad_request"),
        ({"retries": -1}, "bad_request"),
        ({"timeout_s": 0}, "bad_request"),
        ({"timeout_s": "x"}, "bad_request"),
        ({"kind": "session"}, "bad_request"),
        ({"bundle": "../../etc/passwd"}, "bad_request"),
        ({"surprise": 1}, "bad_request"),
        ({"work": {"kind": "pickle", "target": "x"}}, "bad_request"),
        ({"params": {"x": "half \ud800 a letter"}}, "bad_request"),
        ({"params": {"x": "zero \0"}}, "bad_request"),
        ({"name": "a/b 🙂"}, "bad_name"),
        ({"name": "x" * 201}, "bad_request"),
        ({"bundle": "1" * 64}, "unknown_bundle"),
    ],
)
def test_a_bad_submit_is_refused_and_makes_nothing(service: Service, change: dict[str, Any], code: str) -> None:
    before = service.ids()
    with service.http as http:
        answer = http.post(
            f"{API}/runs", content=json.dumps(SPEC | change), headers={"Content-Type": "application/json"}
        )
    assert_error(answer, answer.status_code, code)
    assert 400 <= answer.status_code < 500
    assert service.ids() == before


BODIES = {
    "empty": b"",
    "torn": b"{",
    "list": b"[]",
    "null": b"null",
    "no text": b"\xff\xfe",
    "deep": b"[" * 100_000,
    "large": b" " * (9 << 20),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_none_is_refused(service: Service, name: str) -> None:
    with service.http as http:
        answer = http.post(f"{API}/runs", content=BODIES[name], headers=JSON)
    assert answer.status_code in ({413} if name == "large" else {400, 422}), answer.text
    assert set(answer.json()["error"]) == {"code", "message", "detail", "hint"}


def test_what_is_not_there_is_told_as_an_error(service: Service) -> None:
    with service.http as http:
        for path in ("/nothing", "/runs/", "/runs/r-aaaaaaaaaa/nothing", "//runs", "/runs/%00", "/runs?page=%00"):
            answer = http.get(API + path)
            assert answer.status_code in {404, 422}, path
            assert set(answer.json()["error"]) == {"code", "message", "detail", "hint"}, path
        assert_error(http.get(f"{API}/runs/r-aaaaaaaaaa"), 404, "unknown_run")
        assert_error(http.get(f"{API}/runs?page=nonsense"), 400, "bad_page_token")
        assert http.patch(f"{API}/runs").status_code == 405
        assert http.get(f"{API}/runs?limit=0").status_code == 422
        assert http.get(f"{API}/runs?state=nothing").status_code == 422


def test_the_same_key_makes_one_run(service: Service, tmp_path: Path) -> None:
    work = write(tmp_path, train__py="print(1)")
    first = service.submit(work, key="k-1")
    assert service.submit(work, key="k-1") == first
    spec = service.run(first).spec.model_dump(mode="json")
    with service.http as http:
        for body, key, status in ((spec, "k-1", 200), (spec, "k-2", 201), (spec, "x" * 201, 422)):
            answer = http.post(f"{API}/runs", json=body, headers={"Idempotency-Key": key})
            assert answer.status_code == status, (key, answer.text)
        answer = http.post(f"{API}/runs", json=spec | {"retries": 1}, headers={"Idempotency-Key": "k-1"})
        assert_error(answer, 409, "key_reused")
    second = service.client.runs(limit=1)["items"][0]["id"]
    assert second != first
    for run_id in (first, second):
        service.wait(run_id)
    service.client.remove(first)
    with service.http as http:
        answer = http.post(f"{API}/runs", json=spec, headers={"Idempotency-Key": "k-1"})
        assert_error(answer, 409, "run_removed")
        assert first in answer.json()["error"]["message"]
        assert http.post(f"{API}/runs", json=spec, headers={"Idempotency-Key": "k-2"}).json()["id"] == second


def test_a_list_is_paged(service: Service, tmp_path: Path) -> None:
    work = write(tmp_path, train__py="1")
    ids = [service.submit(work) for _ in range(5)]
    found: list[str] = []
    page = None
    while len(found) < 5:
        answer = service.client.runs(limit=2, page=page)
        found += [run["id"] for run in answer["items"]]
        page = answer["next"]
    assert found[:5] == ids[::-1]
    assert service.client.run(ids[0][:8])["id"] == ids[0]
    assert service.client.run("last")["id"] == ids[-1]
    for run_id in ids:
        service.wait(run_id)


# -- events -------------------------------------------------------------------------------------------------------
@pytest.fixture
def events(service: Service) -> Iterator[Any]:
    """Opens a stream of events: a generator of (id, type, data)."""
    clients: list[httpx.Client] = []

    def open_stream(path: str, last_id: str | None = None) -> Iterator[tuple[str | None, str, dict[str, Any]]]:
        http = service.http
        clients.append(http)
        headers = {"Last-Event-ID": last_id} if last_id else {}
        with http.stream("GET", API + path, headers=headers) as stream:
            event: dict[str, str] = {}
            for line in stream.iter_lines():
                name, _, value = line.partition(": ")
                if line and not line.startswith(":"):
                    event[name] = value
                elif event:
                    yield event.get("id"), event["event"], json.loads(event["data"])
                    event = {}

    yield open_stream
    for client in clients:
        client.close()


def test_a_runs_events_tell_its_whole_life(service: Service, tmp_path: Path, events: Any) -> None:
    work = write(
        tmp_path,
        train__py="""
            import time, atelier
            job = atelier.current_run()
            print("words", flush=True)
            job.log(step=1, loss=0.5)
            job.save("train.py", name="kept.py")
            time.sleep(0.5)
        """,
    )
    run_id = service.submit(work)
    seen: dict[str, list[Any]] = {}
    ids = []
    for event_id, kind, data in events(f"/runs/{run_id}/events"):
        seen.setdefault(kind, []).append(data)
        if event_id is not None:
            ids.append(int(event_id))
        if kind == "run" and data["state"] == "succeeded":
            break
    assert ids == sorted(set(ids))
    assert seen["run"][-1] == service.client.run(run_id)
    assert {data["run"] for kind in ("log", "metrics", "artifact") for data in seen[kind]} == {run_id}
    assert seen["log"][-1] == {"run": run_id, "attempt": 1, "size": 6}
    assert seen["metrics"][0]["last"] == {"loss": 0.5}
    assert seen["metrics"][0]["points"]["loss"][0][:2] == [1, 0.5]
    assert seen["artifact"][0]["artifact"]["path"] == "kept.py"
    again = next(events(f"/runs/{run_id}/events"))
    assert (again[0], again[1], again[2]["state"]) == (str(ids[-1]), "run", "succeeded")


def test_an_event_of_many_metrics_is_bounded(service: Service, tmp_path: Path, events: Any) -> None:
    code = """
        import time, atelier
        atelier.current_run().log(step=1, **{f"m{n:03}": n for n in range(300)})
        atelier.current_run().log(step=2, m000=7)
        time.sleep(1)
    """
    run_id = service.submit(write(tmp_path, train__py=code))
    told: list[dict[str, Any]] = []
    for _, kind, data in events(f"/runs/{run_id}/events"):
        if kind == "metrics":
            told.append(data)
        if kind == "run" and data["state"] == "succeeded":
            break
    assert max(len(each["points"]) for each in told) == EVENT_NAMES
    assert all(set(each["last"]) == set(each["points"]) for each in told)
    assert [point[:2] for each in told for point in each["points"].get("m000", [])] == [[1, 0], [2, 7]]
    names = [name for name in service.client.metrics(run_id)["names"] if name.startswith("m")]
    assert len(names) == 300


def test_a_watcher_goes_on_where_it_was_cut(service: Service, tmp_path: Path, events: Any) -> None:
    first = service.finish(write(tmp_path, train__py="1"))
    last_id = next(events(f"/runs/{first.id}/events"))[0]
    second = service.finish(write(tmp_path, train__py="2"))
    service.client.remove(first.id)
    missed = []
    for _, kind, data in events("/events", last_id):
        if kind in {"run", "removed"}:
            missed.append((kind, data.get("id") or data.get("run")))
        if kind == "removed":
            break
    assert missed[-2:] == [("run", second.id), ("removed", first.id)] or missed[-1] == ("removed", first.id)
    assert ("run", second.id) in missed


# -- over PostgreSQL ----------------------------------------------------------------------------------------------
def test_a_service_over_postgresql(postgresql_url: str, tmp_path: Path) -> None:
    """Its own database, killed in the middle, with words that PostgreSQL's texts can't hold."""
    host = postgresql_url.partition("host=")[2]
    with psycopg.connect(host=host, user="atelier", dbname="postgres", autocommit=True) as admin:
        admin.execute("create database runs")
    settings = (
        Service.__dataclass_fields__["settings"].default
        + f"database: {postgresql_url.replace('/postgres?', '/runs?')}\n"
    )
    with service_over(settings=settings) as place:
        run_id = place.submit(waiting(tmp_path / "long"), retries=1)
        place.wait_log(run_id, "begun")
        place.kill()
        place.start()
        failed = place.finish(write(tmp_path / "odd", train__py="print('a\\0b')\nraise ValueError('c\\0d')"))
        assert (failed.state, failed.reason) == ("failed", "code_error")
        assert failed.message.startswith("ValueError: c\ufffdd")
        assert place.get("/runs/r-a%00").status_code == 422
        assert place.get("/runs?page=a%00").status_code == 422
        (tmp_path / "long/gate").touch()
        assert place.wait(run_id).state == "succeeded"
        assert place.log(run_id) == "begun\n"
        place.client.remove(run_id)
        assert [run["id"] for run in place.client.runs()["items"]] == [failed.id]
