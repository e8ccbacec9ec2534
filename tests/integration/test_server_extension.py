"""The server extension in a real Jupyter server: who may call, what passes through, live changes, copies beside."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPClientError

from atelier.server.handlers import HANDLERS
from tests.cli_driver import Terminal, notebook, service_pid, stop_service, terminal, wait_for
from tests.server_driver import BASE, JupyterServer, Page, jupyter_server
from tests.tiny_server import Answer, Request, tiny_server

pytestmark = pytest.mark.timeout(180)

TRAINS = """
import atelier, time
job = atelier.current_run()
for step in range(epochs):
    time.sleep(pause_s)
    job.log(step=step, loss=1 / (step + 1))
    job.progress(step + 1, total=epochs)
    print("epoch", step, flush=True)
open("model.pt", "wb").write(b"weights" * 1000)
open("page.html", "w").write("<script>alert(1)</script>")
"""
AWAY = {"service_unreachable", "service_not_running"}


@pytest.fixture(scope="module")
def place() -> Iterator[Terminal]:
    with terminal() as opened:
        yield opened


@pytest.fixture(scope="module")
def server(place: Terminal) -> Iterator[JupyterServer]:
    with jupyter_server(place.environ) as running:
        yield running


@pytest.fixture(scope="module")
def run_id(place: Terminal, server: JupyterServer) -> str:
    """A finished run of a notebook of the server."""
    save(server, "work/train.ipynb", epochs=3)
    run = server.json("POST", "atelier/submit", {"path": "work/train.ipynb"}, status=201)
    return str(wait_until_final(server, run["id"])["id"])


def save(server: JupyterServer, name: str, *, epochs: int, pause_s: float = 0.05) -> None:
    path = server.root / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(notebook(TRAINS, parameters=f"epochs = {epochs}\npause_s = {pause_s}"))


def wait_until_final(server: JupyterServer, run_id: str) -> dict[str, object]:
    def final() -> dict[str, object] | None:
        run: dict[str, object] = server.json("GET", f"atelier/api/v1/runs/{run_id}")
        return run if run["ended_at"] else None

    found: dict[str, object] = wait_for(final, f"the end of {run_id}", timeout_s=60)
    return found


# -- who may call ----------------------------------------------------------------------------------------------------
def addresses() -> list[str]:
    """One address for each entry of the extension's table."""
    fills = {r"(list|preview|file)": "list", r"(.*)": "runs", r"([\w-]+)": "a-question"}
    paths = []
    for pattern, _ in HANDLERS:
        path = pattern.lstrip("/")
        for part, fill in fills.items():
            path = path.replace(part, fill)
        assert not set(path) & set("()*?[]\\"), f"add an example for {pattern}"
        paths.append(path)
    return paths


@pytest.mark.parametrize("path", addresses())
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
def test_nothing_answers_without_credentials(server: JupyterServer, path: str, method: str) -> None:
    for headers in ({}, {"Authorization": "token wrong"}):
        answer = server.ask_freely(method, path, headers=headers)
        assert answer.status_code in {403, 405}, (method, path, answer.text)
        if answer.status_code == 405:
            assert server.ask(method, path).status_code == 405, "a method that exists must say 403"


def test_the_socket_is_closed_to_strangers(server: JupyterServer) -> None:
    async def connect(token: str | None, **headers: str) -> None:
        async with await Page.open(server, token=token, **headers):
            pass

    for token in (None, "wrong"):
        with pytest.raises(HTTPClientError) as refused:
            asyncio.run(connect(token))
        assert refused.value.code == 403
    with pytest.raises(HTTPClientError) as foreign:
        asyncio.run(connect(None, Origin="https://evil.example", Cookie="_xsrf=1"))
    assert foreign.value.code == 403


def test_a_cookie_alone_changes_nothing(server: JupyterServer, run_id: str) -> None:
    import httpx

    with httpx.Client(trust_env=False, follow_redirects=True) as browser:
        browser.get(server.url + "login?token=a-token-of-the-tests")
        seen = browser.get(server.url + f"atelier/api/v1/runs/{run_id}")
        assert seen.status_code == 200, seen.text
        for path in ("atelier/submit", "atelier/copy-back", "atelier/questions/x", "atelier/api/v1/runs"):
            assert browser.post(server.url + path, json={"path": "x"}).status_code == 403, path
        xsrf = {"X-XSRFToken": browser.cookies.get("_xsrf", path=BASE) or ""}
        sent = browser.post(server.url + "atelier/submit", json={"path": "no.ipynb"}, headers=xsrf)
        assert (sent.status_code, sent.json()["error"]["code"]) == (404, "no_such_file")


def test_an_answer_needs_a_question_and_is_a_text(server: JupyterServer) -> None:
    for body, status, code in (({"value": "yes"}, 404, "unknown_question"), ({"value": 3}, 422, "bad_answer")):
        told = server.json("POST", "atelier/questions/no-such", body, status=status)
        assert told["error"]["code"] == code


def test_watching_is_no_activity(server: JupyterServer, run_id: str) -> None:
    async def watch() -> None:
        async with await Page.open(server) as page:
            await page.send(subscribe="*")
            await page.until("service", up=True)
            for path in ("runs", f"runs/{run_id}", f"runs/{run_id}/log", "roots/home/list"):
                assert server.ask("GET", f"atelier/api/v1/{path}").status_code == 200

    before = server.last_activity()
    asyncio.run(watch())
    assert server.last_activity() == before
    server.ask("POST", f"atelier/api/v1/runs/{run_id}/cancel")
    assert server.last_activity() > before


# -- passing through ---------------------------------------------------------------------------------------------------
def test_files_of_a_run_are_never_shown_inline(server: JupyterServer, run_id: str) -> None:
    answer = server.ask("GET", f"atelier/api/v1/runs/{run_id}/artifacts/page.html")
    assert answer.text == "<script>alert(1)</script>"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    part = server.ask("GET", f"atelier/api/v1/runs/{run_id}/artifacts/model.pt", headers={"Range": "bytes=7-13"})
    assert (part.status_code, part.content) == (206, b"weights")


def test_errors_keep_their_code_and_hint(server: JupyterServer) -> None:
    missing = server.json("GET", "atelier/api/v1/runs/r-aaaaaaaaaa", status=404)["error"]
    assert missing["code"] == "unknown_run"
    for path in ("runs/../../hub", "runs/%2e%2e/x", "runs/a%2fb", "runs/a%00b", "runs//x", "Runs", "runs/%zz"):
        answer = server.ask("GET", "atelier/api/v1/" + path)
        assert answer.status_code in {404, 422}, (path, answer.text)
        assert "items" not in answer.text
    assert server.json("GET", "atelier/api/v1/events", status=404)["error"]["code"] == "no_such_endpoint"
    assert server.json("GET", "atelier/api/v1/runs/last/events", status=404)["error"]["code"] == "no_such_endpoint"


def test_a_refusal_says_that_its_connection_ends(server: JupyterServer) -> None:
    """A proxy would send its next request there, and that would fail in its place."""
    refused = server.ask_freely("GET", "atelier/api/v1/runs")
    assert (refused.status_code, refused.headers["connection"]) == (403, "close")
    refused = server.ask("GET", "atelier/api/v1/events")
    assert (refused.status_code, refused.headers["connection"]) == (404, "close")
    assert "connection" not in server.ask("GET", "atelier/api/v1/runs/r-aaaaaaaaaa").headers


def test_a_large_body_streams_up_and_a_too_large_one_is_refused(server: JupyterServer, place: Terminal) -> None:
    data = os.urandom(2**20) * 24
    path = f"atelier/api/v1/uploads/{hashlib.sha256(data).hexdigest()}"
    sent = server.ask("PUT", path, content=iter(data[at : at + 2**16] for at in range(0, len(data), 2**16)))
    assert sent.status_code in {200, 201}, sent.text
    assert server.ask("HEAD", path).status_code == 200
    wrong = server.ask("PUT", f"atelier/api/v1/uploads/{'0' * 64}", content=data)
    assert wrong.status_code == 422, wrong.text
    large = b"[" + b" " * (9 * 2**20)
    refused = server.ask("POST", "atelier/api/v1/runs", content=large)
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "too_large")


def test_only_listed_headers_pass(place: Terminal) -> None:
    def answer(_request: Request) -> Answer:
        headers = {
            "Content-Type": "text/html",
            "Set-Cookie": "stolen=1",
            "Access-Control-Allow-Origin": "*",
            "X-Powered-By": "a service",
        }
        return Answer(200, b"<h1>page</h1>", headers)

    with tiny_server(answer) as service:
        environ = {**place.environ, "ATELIER_URL": service.url, "JUPYTERHUB_API_TOKEN": "hub-token"}
        environ["JUPYTERHUB_SERVICE_PREFIX"] = "/"
        with jupyter_server(environ) as server:
            sent = {"Cookie": "secret=1", "X-Forwarded-For": "1.2.3.4", "Referer": "http://x/", "Idempotency-Key": "k1"}
            told = server.ask("POST", "atelier/api/v1/runs?limit=2&state=a%20b", content=b'{"a": 1}', headers=sent)
        asked = next(request for request in service.asked if request.method == "POST")
    assert asked.path == "/services/atelier/api/v1/runs?limit=2&state=a%20b"
    assert asked.body == b'{"a": 1}'
    assert asked.headers["authorization"] == "token hub-token"
    assert asked.headers["idempotency-key"] == "k1"
    assert not {"cookie", "x-forwarded-for", "referer"} & set(asked.headers)
    assert told.headers["content-disposition"] == "attachment"
    assert "stolen" not in told.headers.get("set-cookie", "")
    assert told.headers.get("access-control-allow-origin") != "*"
    assert "x-powered-by" not in told.headers


def test_an_answer_that_breaks_off_does_not_look_whole(place: Terminal) -> None:
    import httpx

    def answer(_request: Request) -> Answer:
        return Answer(200, b"x" * 2**20, {"Content-Type": "application/octet-stream"}, cut=2**19)

    with tiny_server(answer) as service:
        environ = {**place.environ, "ATELIER_URL": service.url, "JUPYTERHUB_API_TOKEN": "t"}
        with jupyter_server(environ) as server, pytest.raises(httpx.TransportError):
            server.ask("GET", "atelier/api/v1/runs/r-aaaaaaaaaa/artifacts/big.bin")


# -- live changes ------------------------------------------------------------------------------------------------------
def test_two_pages_follow_one_run_live(server: JupyterServer) -> None:
    async def follow() -> None:
        async with await Page.open(server) as one, await Page.open(server) as other:
            await one.send(subscribe="*")
            await one.until("service", up=True)
            run = await submit(server, "live.ipynb")
            await other.send(subscribe=run["id"])
            metrics = await other.until("metrics", run=run["id"])
            assert metrics["points"]["loss"][0][1] <= 1.0
            for page in (one, other):
                final = await page.until("run", id=run["id"], state="succeeded")
                assert final["progress"]["done"] == 5
                assert {"run", "log", "metrics"} <= set(page.kinds)

    save(server, "live.ipynb", epochs=5, pause_s=0.3)
    asyncio.run(follow())


def test_a_page_hears_only_of_what_it_asked_for(server: JupyterServer, run_id: str) -> None:
    async def follow() -> None:
        async with await Page.open(server) as one, await Page.open(server) as everything:
            await one.send(subscribe=run_id)
            await one.send(subscribe="../../etc")
            await everything.send(subscribe="*")
            await everything.until("service", up=True)
            first = await submit(server, "other.ipynb")
            await everything.until("run", id=first["id"], state="succeeded")
            await everything.send(unsubscribe="*")
            second = await submit(server, "other.ipynb")
            await one.send(subscribe=second["id"])
            await one.until("run", id=second["id"], state="succeeded")
            assert first["id"] not in [message["data"].get("id") for message in one.seen]
            await everything.send(subscribe=run_id)
            await one.send(unsubscribe=second["id"])
            third = await submit(server, "other.ipynb")
            await asyncio.to_thread(wait_until_final, server, third["id"])
            assert third["id"] not in [message["data"].get("id") for message in everything.seen]

    save(server, "other.ipynb", epochs=1)
    asyncio.run(follow())


async def submit(server: JupyterServer, path: str) -> dict[str, Any]:
    """Submits while the loop goes on."""
    run: dict[str, Any] = await asyncio.to_thread(server.json, "POST", "atelier/submit", {"path": path}, status=201)
    return run


def test_the_service_dies_and_comes_back(server: JupyterServer, place: Terminal, run_id: str) -> None:
    async def follow() -> None:
        async with await Page.open(server) as page:
            await page.send(subscribe="*")
            await page.until("service", up=True)
            await asyncio.to_thread(stop_service, place.home, signal.SIGKILL)
            down = await page.until("service", up=False)
            assert down["error"]["code"] in AWAY
            assert server.json("GET", f"atelier/api/v1/runs/{run_id}", status=503)["error"]["code"] in AWAY
            assert server.json("GET", "atelier/api/v1/roots")["items"][0]["name"] == "home"
            run = await submit(server, "again.ipynb")
            await page.send(retry=True)
            await page.until("service", up=True)
            await page.until("resync")
            assert wait_until_final(server, run["id"])["state"] == "succeeded"
            assert server.json("GET", f"atelier/api/v1/runs/{run_id}")["state"] == "succeeded"

    assert service_pid(place.home)
    save(server, "again.ipynb", epochs=1)
    asyncio.run(follow())


def test_a_page_that_sends_nonsense_is_cut_off(server: JupyterServer) -> None:
    async def talk() -> None:
        async with await Page.open(server) as page:
            await page.send_text("[]")
            assert await page.is_closed_by_server()

    asyncio.run(talk())


# -- submit ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"path": "no.ipynb"}, 404, "no_such_file"),
        ({"path": "../escape.ipynb"}, 422, "bad_path"),
        ({"path": "/etc/passwd"}, 422, "bad_path"),
        ({"path": "a\0b"}, 422, "bad_path"),
        ({"path": 3}, 422, "bad_path"),
        ({}, 422, "bad_path"),
        ({"path": "good.ipynb", "params": {"epoch": 3}}, 422, "unknown_parameter"),
        ({"path": "good.ipynb", "machine": "moon"}, 422, "unknown_machine"),
        ({"path": "good.ipynb", "colour": "red"}, 422, "unknown_option"),
        ({"path": "broken.ipynb"}, 422, "bad_notebook"),
        ({"path": "empty.ipynb"}, 422, "empty_work"),
    ],
)
def test_a_wrong_submit_is_refused_with_its_code(
    server: JupyterServer, body: dict[str, object], status: int, code: str
) -> None:
    save(server, "good.ipynb", epochs=1)
    (server.root / "broken.ipynb").write_text("{ not JSON")
    (server.root / "empty.ipynb").write_text("")
    told = server.json("POST", "atelier/submit", body, status=status)["error"]
    assert told["code"] == code, told
    assert told["message"]


# -- files -------------------------------------------------------------------------------------------------------------
def copy(server: JupyterServer, status: int = 201, **order: object) -> dict[str, object]:
    told: dict[str, object] = server.json("POST", "atelier/copy-back", order, status=status)
    return told


def test_an_artifact_is_copied_back_and_never_over_another_file(server: JupyterServer, run_id: str) -> None:
    target = server.root / "work" / "model.pt"
    assert copy(server, run=run_id, artifact="model.pt") == {"path": "work/model.pt", "size_bytes": 7000}
    assert target.read_bytes() == b"weights" * 1000
    target.write_text("mine")
    error = copy(server, 409, run=run_id, artifact="model.pt")["error"]
    assert isinstance(error, dict)
    assert (error["code"], error["detail"]["free"]) == ("file_exists", "model-1.pt")
    assert target.read_text() == "mine"
    assert copy(server, run=run_id, artifact="model.pt", name="model-1.pt")["path"] == "work/model-1.pt"
    assert copy(server, run=run_id, artifact="model.pt", replace=True)["path"] == "work/model.pt"
    assert target.read_bytes() == b"weights" * 1000
    assert not [path for path in target.parent.iterdir() if "partial" in path.name]


def test_the_executed_notebook_is_copied_under_a_name_of_its_own(server: JupyterServer, run_id: str) -> None:
    written = copy(server, run=run_id, artifact=None)["path"]
    assert written == f"work/train.{run_id}.ipynb"
    assert "epoch 2" in (server.root / str(written)).read_text()


@pytest.mark.parametrize(
    ("order", "status", "code"),
    [
        ({"artifact": "model.pt", "name": "../model.pt"}, 422, "bad_path"),
        ({"artifact": "model.pt", "name": "/etc/cron.d/x"}, 422, "bad_path"),
        ({"artifact": "model.pt", "name": ".bashrc"}, 422, "bad_path"),
        ({"artifact": "model.pt", "name": "link/model.pt"}, 403, "not_a_folder"),
        ({"artifact": "model.pt", "name": "linked.pt"}, 409, "file_exists"),
        ({"artifact": "../run.json"}, 422, "bad_path"),
        ({"artifact": "nothing.pt"}, 404, "unknown_artifact"),
        ({"artifact": "model.pt", "replace": "yes"}, 422, "bad_order"),
        ({"artifact": "model.pt", "run": "r-../../../x"}, 422, "bad_order"),
        ({"artifact": "model.pt", "run": "r-aaaaaaaaaa"}, 404, "unknown_run"),
    ],
)
def test_a_copy_stays_beside_the_notebook(
    server: JupyterServer, run_id: str, tmp_path: Path, order: dict[str, object], status: int, code: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for name, target in (("link", outside), ("linked.pt", outside / "made.pt")):
        link = server.root / "work" / name
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    error = copy(server, status, **{"run": run_id, **order})["error"]
    assert isinstance(error, dict)
    assert error["code"] == code
    assert not list(outside.iterdir())


def test_home_is_answered_here(server: JupyterServer) -> None:
    home = server.root.parent / "home"
    (home / "table.csv").write_text("a,b\n1,2\n")
    (home / "page.html").write_text("<script>alert(1)</script>")
    listed = server.json("GET", "atelier/api/v1/roots/home/list?path=")
    assert [item["name"] for item in listed["items"]] == ["page.html", "table.csv"]
    shown = server.json("GET", "atelier/api/v1/roots/home/preview?path=table.csv")
    assert shown["rows"], shown
    planned = server.json("GET", "atelier/api/v1/roots/home/preview?path=table.csv&plan_only=true")
    assert planned["rows"] is None
    page = server.ask("GET", "atelier/api/v1/roots/home/file?path=page.html")
    assert page.headers["content-disposition"].startswith("attachment")
    assert "sandbox" in page.headers["content-security-policy"]
    for path in ("../", "/etc", "%2e%2e", "a%00b"):
        answer = server.ask("GET", f"atelier/api/v1/roots/home/list?path={path}")
        assert answer.status_code == 422, (path, answer.text)
    assert server.json("GET", "atelier/api/v1/roots/home/list?limit=abc", status=422)["error"]["code"] == "bad_number"
