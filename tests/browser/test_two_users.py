"""Two users of one platform: whatever the first one's pages asked for, the second gets nothing of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, expect

from atelier.wire import API
from tests.browser.page_driver import Asked, Records, Visitor, platform_with_images, visit
from tests.browser.run_driver import RunPane
from tests.browser.work_driver import Gate, write_steps
from tests.hub_driver import Platform

FOR_ALL = re.compile(r"/hub/(static/.*|login|logo)|/user/ann/(static|lab/extensions|lab/api/themes)/.*")
"""What everybody may read, logged in or not: the login page, and programs that are the same for all."""
OF_THE_CALLER = re.compile(r"/(hub/(home|spawn|token)?)?")
"""Pages that show whoever asks their own things."""
MODEL = b"a model of one line"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform_with_images(tmp_path_factory.mktemp("u")) as platform:
        yield platform


@dataclass
class Scene:
    """Ann, who has used everything and whose run goes on, and Bob, who has a server of his own."""

    ann: Visitor
    bob: Visitor
    hers: Records
    his: Records
    run_id: str
    gate: Gate

    @property
    def asked(self) -> list[Asked]:
        """What Ann's pages asked for, each once."""
        once = {(asked.method, asked.url.split("?")[0], asked.body): asked for asked in self.ann.asked}
        return list(once.values())


@pytest.fixture(scope="module")
def scene(platform: Platform, browser: Browser) -> Iterator[Scene]:
    gate = write_steps(platform.user_home / "work")
    with visit(browser, platform, "ann") as ann, visit(browser, platform, "bob") as bob:
        ann.log_in()
        bob.log_in()
        hers, his = Records.of(platform.login("ann")), Records.of(platform.login("bob"))
        run_id = uses_everything(ann, hers)
        bob.start_lab()
        gets_an_xsrf_cookie(bob, his)
        yield Scene(ann, bob, hers, his, run_id, gate)
        gate.end()
        RunPane(ann.page.locator(f'.jp-NotebookPanel [data-run="{run_id}"]')).wait_for_state("Done")


def uses_everything(ann: Visitor, hers: Records) -> str:
    """Ann starts, watches a run with all its parts, a model, her files; the run's id."""
    ann.start_lab()
    ann.open("work/watch.ipynb")
    pane = RunPane(ann.run_cell(0).get_by_test_id("atelier-run")).wait()
    pane.wait_for_step(3)
    pane.open_tab("Files")
    with ann.page.expect_download():
        pane.root.get_by_role("link", name="Download plan.txt").click()
    pane.root.get_by_role("button", name="Copy plan.txt back beside the notebook").click()
    pane.root.get_by_role("button", name="Pin", exact=True).click()
    expect(pane.root.get_by_role("button", name="Unpin")).to_be_visible()
    pane.root.get_by_role("button", name="Open a copy of the executed notebook").click()
    publishes(hers)
    bundle = '{"application/vnd.atelier.model+json": {"name": "plain", "version": 1}}'
    ann.open("work/watch.ipynb")
    model = ann.run_cell(1, f"from IPython.display import display\ndisplay({bundle}, raw=True)").get_by_test_id(
        "atelier-model"
    )
    with ann.page.expect_download():
        model.get_by_role("link", name="Download").click()
    ann.do("atelier:show-runs")
    ann.page.get_by_test_id("atelier-runs").get_by_role("button", name="steps", exact=True).click()
    return pane.id


def gets_an_xsrf_cookie(bob: Visitor, his: Records) -> None:
    """Ann's server gives Bob one with the page that refuses him, so that what he sends fails for no lesser reason."""
    headers = {"Authorization": his.http.headers["Authorization"]}
    assert bob.context.request.get(f"{bob.platform.url}/user/ann/lab", headers=headers).status == 403
    assert ("_xsrf", "/user/ann/") in {(cookie["name"], cookie["path"]) for cookie in bob.context.cookies()}


def publishes(hers: Records) -> None:
    """A model in Ann's registry."""
    digest = hashlib.sha256(MODEL).hexdigest()
    assert hers.http.put(f"{API}/uploads/{digest}", content=MODEL).status_code in {200, 201, 204}
    file = {"path": "model.onnx", "size_bytes": len(MODEL), "sha256": digest}
    answer = hers.http.post(f"{API}/models", json={"name": "plain", "card": {}, "files": [file]})
    assert answer.status_code == 201, answer.text


@pytest.mark.timeout(300)
def test_replayed_with_the_seconds_cookies_every_request_is_refused(scene: Scene) -> None:
    served = [asked for asked in scene.asked if asked.url.startswith("http")]
    paths = {urlsplit(asked.url).path for asked in served}
    assert {f"/user/ann/atelier/api/v1/runs/{scene.run_id}", "/user/ann/atelier/copy-back", "/user/ann/lab"} <= paths
    data = [asked for asked in served if "/user/ann/atelier/api/" in asked.url and asked.method == "GET"]
    assert {replayed(scene.ann, asked) for asked in data} == {200}
    given = {asked.url: status for asked in served if (status := replayed(scene.bob, asked)) not in {403, 404}}
    wrong = {url: status for url, status in given.items() if not FOR_ALL.fullmatch(urlsplit(url).path)}
    assert wrong == {}


@pytest.mark.timeout(120)
def test_what_everybody_gets_of_a_server_is_jupyterlabs_own(scene: Scene) -> None:
    """Byte for byte what another one's server gives."""
    files = {urlsplit(asked.url).path for asked in scene.asked if asked.url.startswith("http")}
    programs = {path for path in files if FOR_ALL.fullmatch(path) and path.startswith("/user/ann/")}
    assert programs
    for path in programs:
        of_ann, of_bob = (
            scene.bob.context.request.get(scene.bob.platform.url + each)
            for each in (path, path.replace("/ann/", "/bob/", 1))
        )
        assert (of_ann.status, of_ann.body()) == (of_bob.status, of_bob.body()), path


def replayed(visitor: Visitor, asked: Asked) -> int:
    """The status of the same request with a visitor's cookies and XSRF token; 404 for a page that shows Bob his own."""
    if OF_THE_CALLER.fullmatch(urlsplit(asked.url).path):
        assert "/user/ann" not in visitor.context.request.get(asked.url).text()
        return 404
    cookies = {cookie["name"]: cookie["value"] for cookie in visitor.context.cookies(asked.url)}
    headers = {name: asked.headers[name] for name in ("accept", "content-type") if name in asked.headers}
    headers |= {"X-XSRFToken": cookies.get("_xsrf", "")}
    url = re.sub(r"([?&])token=[^&]*", r"\1", asked.url)
    return visitor.context.request.fetch(url, method=asked.method, headers=headers, data=asked.body).status


@pytest.mark.timeout(120)
def test_replayed_with_the_seconds_token_the_first_ones_server_refuses(scene: Scene) -> None:
    served = [asked for asked in scene.asked if asked.url.startswith(f"{scene.bob.platform.url}/user/ann/")]
    private = [asked for asked in served if not FOR_ALL.fullmatch(urlsplit(asked.url).path)]
    for asked in private:
        url = asked.url.removeprefix(scene.bob.platform.url)
        answer = scene.his.http.request(asked.method, url, content=asked.body or b"", follow_redirects=True)
        assert answer.status_code in {403, 404}, f"{asked.method} {url}: {answer.status_code}"


@pytest.mark.timeout(120)
def test_replayed_against_the_service_nothing_of_the_first_is_there(scene: Scene) -> None:
    prefix = "/user/ann/atelier/api/v1"
    asked = {one.url.split(prefix)[1] for one in scene.asked if prefix in one.url and one.method == "GET"}
    assert {f"/runs/{scene.run_id}/artifacts/plan.txt", "/models/plain/versions/1/archive"} <= asked
    for path in asked:
        answer = scene.his.http.get(API + path)
        is_hers = scene.run_id in path or "/plain" in path
        assert answer.status_code == (404 if is_hers else 200), f"{path}: {answer.status_code}"
        assert scene.run_id not in answer.text or is_hers


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/runs/{run}"),
        ("GET", "/runs/{run}/log?offset=0"),
        ("GET", "/runs/{run}/metrics"),
        ("GET", "/runs/{run}/artifacts"),
        ("GET", "/runs/{run}/artifacts/plan.txt"),
        ("GET", "/runs/{run}/notebook"),
        ("GET", "/runs/{run}/events"),
        ("POST", "/runs/{run}/cancel"),
        ("POST", "/runs/{run}/move"),
        ("PUT", "/runs/{run}/pin"),
        ("DELETE", "/runs/{run}/pin"),
        ("DELETE", "/runs/{run}"),
        ("HEAD", "/bundles/{bundle}"),
        ("HEAD", "/uploads/{upload}"),
        ("GET", "/models?run={run}"),
        ("GET", "/models/plain"),
        ("GET", "/models/plain/versions/1"),
        ("GET", "/models/plain/versions/1/files/model.onnx"),
        ("GET", "/models/plain/versions/1/archive"),
        ("DELETE", "/models/plain/versions/1"),
        ("PUT", "/models/plain/aliases/best"),
        ("DELETE", "/models/plain/aliases/best"),
    ],
)
def test_the_service_knows_nothing_of_the_first_ones_things(scene: Scene, method: str, path: str) -> None:
    bundle, upload = scene.hers.run(scene.run_id)["spec"]["bundle"], hashlib.sha256(MODEL).hexdigest()
    body = {"POST": {"now": True}, "PUT": {"version": 1}}.get(method) if "move" not in path else {"to": "first"}
    url = API + path.format(run=scene.run_id, bundle=bundle, upload=upload)
    assert scene.his.http.request(method, url, json=body).status_code == 404
    run = scene.hers.run(scene.run_id)
    assert (run["desired"], run["pinned"]) == ("finished", True)
    assert scene.hers.get("/models/plain/versions/1")["aliases"] == []


def test_the_seconds_lists_are_empty(scene: Scene) -> None:
    assert scene.his.get("/runs")["items"] == []
    assert scene.his.get("/models")["items"] == []
    assert [run["id"] for run in scene.hers.get("/runs")["items"]] == [scene.run_id]


def test_what_the_first_uploaded_can_not_be_used_by_the_second(scene: Scene) -> None:
    spec = {**scene.hers.run(scene.run_id)["spec"], "name": "mine"}
    answer = scene.his.http.post(f"{API}/runs", json=spec)
    assert answer.json()["error"]["code"] == "unknown_bundle", answer.text
    file = {"path": "model.onnx", "size_bytes": len(MODEL), "sha256": hashlib.sha256(MODEL).hexdigest()}
    answer = scene.his.http.post(f"{API}/models", json={"name": "mine", "card": {}, "files": [file]})
    assert answer.json()["error"]["code"] == "unknown_upload", answer.text


def test_the_second_hears_nothing_of_the_first(scene: Scene) -> None:
    """All events of the caller: the first one's run goes on, and nothing of it is told."""
    with pytest.raises(httpx.ReadTimeout), scene.his.http.stream("GET", f"{API}/events", timeout=2) as stream:
        for line in stream.iter_lines():
            assert scene.run_id not in line


@pytest.mark.timeout(120)
def test_no_websocket_of_the_first_opens_for_the_second(scene: Scene) -> None:
    sockets = {asked.url for asked in scene.asked if asked.url.startswith("ws")}
    assert any("/atelier/events" in url for url in sockets), sockets
    assert any("/api/kernels/" in url for url in sockets), sockets
    for url in sockets:
        assert opened(scene.bob, url.split("?")[0]) == "refused", url
    assert opened(scene.bob, f"ws://127.0.0.1:{scene.bob.platform.port}/user/bob/atelier/events") == "open"


def opened(bob: Visitor, url: str) -> str:
    """What becomes of a WebSocket from one of Bob's pages."""
    told: str = bob.page.evaluate(
        """url => new Promise(done => {
          const socket = new WebSocket(url);
          socket.onopen = () => { done('open'); socket.close(); };
          socket.onerror = () => done('refused');
        })""",
        url,
    )
    return told
