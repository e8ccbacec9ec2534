"""Whose is what: hub tokens, their scope, and two users who see nothing of each other through any URL."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from atelier.bundle.snapshot import plan_bundle, write_bundle
from atelier.hub.site import free_port
from atelier.wire import API
from atelier.works.finding import find_work
from tests.cli_driver import notebook, wait_for
from tests.hub_standin import SERVICE_TOKEN, HubStandIn, hub_standin
from tests.service_driver import SETTINGS, Service, service_over, write

TRAIN = """
import atelier, os
job = atelier.current_run()
job.log(step=1, loss=0.5)
job.save("train.ipynb", name="secret.txt")
print("secret words")
"""


@dataclass
class Place:
    """A service behind a hub, and a run and a model of the user ``ann``."""

    service: Service
    hub: HubStandIn
    run_id: str = ""
    bundle: str = ""

    def call(self, method: str, path: str, token: str, **options: Any) -> httpx.Response:
        """A request with a hub token, over TCP as through the hub's proxy."""
        with httpx.Client(base_url=self.service.note["url"] + API, timeout=30, trust_env=False) as http:
            return http.request(method, path, headers={"Authorization": f"token {token}"}, **options)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("hub")
    token_file = folder / "token"
    token_file.write_text(SERVICE_TOKEN)
    settings = SETTINGS.replace(
        "{name: gpu,", "{name: team-only, groups: [team], cpu: 20m, memory: 256Mi}\n    - {name: gpu,"
    )
    with hub_standin() as hub:
        hub.user("ann", "ann-1", groups=("team",))
        hub.user("bob", "bob-1")
        options = ("--port", str(free_port()), "--hub", hub.url)
        more = {"ATELIER_HUB_TOKEN_FILE": str(token_file), "ATELIER_LOCAL_USER": "lea"}
        with service_over(settings=settings, options=options, more=more) as service:
            found = Place(service, hub)
            _work_of_ann(found, folder)
            yield found
            hub.is_down = False


def _work_of_ann(place: Place, folder: Path) -> None:
    """A finished run with everything that a run can have, and a model with an alias."""
    work = write(folder / "work", train__ipynb=notebook(TRAIN))
    plan = plan_bundle(find_work(str(work), folder), limit_bytes=1 << 20)
    place.bundle = write_bundle(plan, folder / "bundle")
    sent = place.call("PUT", f"/bundles/{place.bundle}", "ann-1", content=(folder / "bundle").read_bytes())
    assert sent.status_code == 201, sent.text
    spec = {"work": plan.work.model_dump(mode="json"), "bundle": place.bundle, "machine": "team-only"}
    made = place.call("POST", "/runs", "ann-1", json=spec)
    assert made.status_code == 201, made.text
    place.run_id = made.json()["id"]
    wait_for(lambda: place.call("GET", f"/runs/{place.run_id}", "ann-1").json()["state"] == "succeeded", "ann's run")
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()
    place.call("PUT", f"/uploads/{digest}", "ann-1", content=content)
    files = [{"path": "secret.txt", "size_bytes": len(content), "sha256": digest}]
    body = {"name": "digits", "card": {"x": 1}, "files": files, "run": place.run_id}
    assert place.call("POST", "/models", "ann-1", json=body).status_code == 201
    assert place.call("PUT", "/models/digits/aliases/production", "ann-1", json={"version": 1}).status_code == 200


# -- who is who ---------------------------------------------------------------------------------------------------
def test_a_hub_user_is_known_with_groups(place: Place) -> None:
    user = place.call("GET", "/catalog", "ann-1").json()["user"]
    assert user == {"name": "ann", "owner": "ann#2026-01-01T00:00:00.000000Z", "groups": ["team"], "is_local": False}


@pytest.mark.parametrize("authorization", ["", "token", "token nobody", "Basic YW5uOmFubg==", "run ann-1", "ann-1"])
def test_who_is_not_known_gets_nothing(place: Place, authorization: str) -> None:
    for path in ("/catalog", "/runs", f"/runs/{place.run_id}", "/events", "/models", "/roots", "/leases"):
        answer = httpx.get(place.service.note["url"] + API + path, headers={"Authorization": authorization})
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthenticated"), path


def test_a_token_without_the_scope_gets_nothing(place: Place) -> None:
    place.hub.user("ann", "ann-narrow", scopes=("users:activity!user", "access:services!service=other"))
    answer = place.call("GET", "/runs", "ann-narrow")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "no_scope")
    assert "access:services!service=atelier" in answer.json()["error"]["message"]


def test_a_services_token_is_no_users(place: Place) -> None:
    place.hub.tokens["robot"] = {"kind": "service", "name": "robot", "scopes": ["access:services"]}
    assert place.call("GET", "/runs", "robot").status_code == 401


def test_the_local_user_is_the_same_with_and_without_a_hub(place: Place) -> None:
    place.hub.user("lea", "lea-1")
    assert place.call("GET", "/catalog", "lea-1").json()["user"]["owner"] == "lea#local"
    assert place.service.client.catalog()["user"]["owner"] == "lea#local"
    assert getpass.getuser() != "lea"


def test_a_hub_user_may_not_name_an_interpreter(place: Place) -> None:
    work = {"kind": "script", "target": "train.py"}
    spec = {"work": work, "bundle": place.bundle, "image": "current", "python": "/usr/bin/python3"}
    answer = place.call("POST", "/runs", "ann-1", json=spec)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "image_not_allowed")


def test_a_machine_of_a_group_is_that_groups(place: Place) -> None:
    names = {
        token: {one["name"] for one in place.call("GET", "/catalog", token).json()["machines"]}
        for token in ("ann-1", "bob-1")
    }
    assert names["ann-1"] - names["bob-1"] == {"team-only"}
    bundle = (place.service.home / "blobs/runs" / place.run_id / "bundle.tar.zst").read_bytes()
    assert place.call("PUT", f"/bundles/{place.bundle}", "bob-1", content=bundle).status_code == 201
    spec = {"work": {"kind": "notebook", "target": "train.ipynb"}, "bundle": place.bundle, "machine": "team-only"}
    answer = place.call("POST", "/runs", "bob-1", json=spec)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "machine_not_allowed")


# -- two users ----------------------------------------------------------------------------------------------------
def every_url(place: Place) -> list[tuple[str, str]]:
    """Method and URL of everything that the service has for users, with the names of ann's things in it."""
    document = httpx.get(place.service.note["url"] + "/services/atelier/openapi.json").json()
    values = {
        "run_id": place.run_id, "path": "secret.txt", "name": "digits", "version": "1", "alias": "production",
        "root": f"runs/{place.run_id}", "sha256": place.bundle, "kernel": "kernel-1",
    }  # fmt: skip
    found = []
    for path, methods in document["paths"].items():
        if "/agent/" not in path:
            url = path.removeprefix(API)
            for name, value in values.items():
                url = url.replace(f"{{{name}}}", value)
            assert "{" not in url, f"a new parameter: {url}"
            found += [(method.upper(), url) for method in methods]
    return found


def test_every_url_of_ann_is_nothing_for_bob(place: Place) -> None:
    own = {"/catalog", "/runs", "/models", "/roots", "/events", "/leases", "/leases/kernel-1"}
    urls = [(method, url) for method, url in every_url(place) if url not in own and method in {"GET", "HEAD"}]
    assert len(urls) >= 14, urls
    kept = place.call("GET", f"/runs/{place.run_id}/artifacts", "ann-1").json()["items"]
    content = next(item["sha256"] for item in kept if item["path"] == "secret.txt")
    for method, url in urls:
        wanted = url + (f"?path=artifacts/1/{content}/secret.txt" if url.endswith(("/preview", "/file")) else "")
        mine = place.call(method, wanted, "ann-1", timeout=5) if not url.endswith("/events") else None
        assert mine is None or mine.status_code == 200, (method, wanted, mine.text[:300])
        if "/bundles/" in url or "/uploads/" in url:
            continue  # bob has put the same bytes himself; see below
        answer = place.call(method, wanted, "bob-1")
        assert answer.status_code in {403, 404}, (method, wanted, answer.status_code, answer.text[:300])
        assert "secret" not in answer.text.replace("secret.txt", "")


def test_bob_can_not_change_what_is_anns(place: Place) -> None:
    before = place.call("GET", f"/runs/{place.run_id}", "ann-1").json()
    changes = [
        ("POST", f"/runs/{place.run_id}/cancel", {"now": True}),
        ("POST", f"/runs/{place.run_id}/move", {"to": "last"}),
        ("PUT", f"/runs/{place.run_id}/pin", None),
        ("DELETE", f"/runs/{place.run_id}", None),
        ("DELETE", "/models/digits/versions/1", None),
        ("PUT", "/models/digits/aliases/staging", {"version": 1}),
        ("DELETE", "/models/digits/aliases/production", None),
        ("POST", "/models", {"name": "stolen", "card": {}, "files": [], "run": place.run_id}),
    ]
    for method, url, body in changes:
        answer = place.call(method, url, "bob-1", json=body)
        assert answer.status_code in {403, 404}, (method, url, answer.text)
    assert place.call("GET", f"/runs/{place.run_id}", "ann-1").json() == before
    models = place.call("GET", "/models/digits", "ann-1").json()["items"]
    assert [(one["version"], one["aliases"]) for one in models] == [(1, ["production"])]


def test_bobs_own_lists_are_empty(place: Place) -> None:
    for url in ("/runs", "/models"):
        assert place.call("GET", url, "bob-1").json() == {"items": [], "next": None}
        assert len(place.call("GET", url, "ann-1").json()["items"]) == 1


@pytest.mark.parametrize("text", ["last", "r-", "r-a", "r-%", "r-_", "%2e%2e", "r-%00", "R-AAAAAAAAAA", " "])
def test_no_other_name_of_a_run_leads_to_anns(place: Place, text: str) -> None:
    answer = place.call("GET", f"/runs/{text}", "bob-1")
    assert answer.status_code in {404, 422}, answer.text
    assert "secret" not in answer.text


def test_uploads_are_seen_only_by_who_sent_them(place: Place) -> None:
    content = b"only ann has this"
    digest = hashlib.sha256(content).hexdigest()
    for kind in ("bundles", "uploads"):
        assert place.call("PUT", f"/{kind}/{digest}", "ann-1", content=content).status_code == 201
        assert place.call("HEAD", f"/{kind}/{digest}", "ann-1").status_code == 200
        assert place.call("HEAD", f"/{kind}/{digest}", "bob-1").status_code == 404
    spec = {"work": {"kind": "script", "target": "train.py"}, "bundle": digest}
    answer = place.call("POST", "/runs", "bob-1", json=spec)
    assert answer.json()["error"]["code"] == "unknown_bundle"
    files = [{"path": "model.onnx", "size_bytes": len(content), "sha256": digest}]
    answer = place.call("POST", "/models", "bob-1", json={"name": "stolen", "card": {}, "files": files})
    assert answer.json()["error"]["code"] == "unknown_upload"


def test_events_are_their_owners(place: Place) -> None:
    """bob watches everything from the first change on, and sees only his own."""
    url = place.service.note["url"] + API
    headers = {"Authorization": "token bob-1", "Last-Event-ID": "0"}
    with (
        httpx.Client(timeout=20, trust_env=False) as http,
        http.stream("GET", f"{url}/events", headers=headers) as stream,
    ):
        lines = stream.iter_lines()
        assert next(lines) == ": atelier"
        place.call("POST", f"/runs/{place.run_id}/cancel", "ann-1")
        spec = {"work": {"kind": "notebook", "target": "train.ipynb"}, "bundle": place.bundle, "name": "bobs"}
        made = place.call("POST", "/runs", "bob-1", json=spec | {"machine": "huge"})
        assert made.status_code == 422
        made = place.call("POST", "/runs", "bob-1", json=spec | {"machine": "tiny"})
        assert made.status_code == 201, made.text
        run_id = made.json()["id"]
        for line in lines:
            assert place.run_id not in line
            if line.startswith("data: ") and json.loads(line[6:]).get("state") == "succeeded":
                assert json.loads(line[6:])["id"] == run_id
                break
    assert place.call("DELETE", f"/runs/{run_id}", "bob-1").status_code == 204


def test_a_name_that_is_made_again_inherits_nothing(place: Place) -> None:
    place.hub.user("dora", "dora-1")
    assert place.call("GET", "/catalog", "dora-1").json()["user"]["owner"].startswith("dora#2026-01-01")
    place.hub.created["ann"] = "2026-06-06T00:00:00.000000Z"
    try:
        place.hub.user("ann", "ann-again")
        assert place.call("GET", "/runs", "ann-again").json()["items"] == []
        assert place.call("GET", f"/runs/{place.run_id}", "ann-again").status_code == 404
    finally:
        place.hub.created["ann"] = "2026-01-01T00:00:00.000000Z"


@pytest.mark.parametrize(("name", "home"), [("bob", "homes/bob"), ("E.Va", "homes/_45_2e_56a"), ("lea", None)])
def test_a_run_sees_the_home_of_its_user_as_the_notebook_does(
    place: Place, tmp_path: Path, name: str, home: str | None
) -> None:
    place.hub.user(name, f"{name}-home")
    program = "import json, os; print(json.dumps([os.environ.get(name) for name in ('HOME', 'USER', 'LOGNAME')]))"
    keep = "open(os.path.expanduser('~/.cached'), 'a').close()" if home else ""
    work = write(tmp_path / "work", who__py=f"{program}\n{keep}\n")
    plan = plan_bundle(find_work(str(work), tmp_path), limit_bytes=1 << 20)
    digest = write_bundle(plan, tmp_path / "bundle")
    place.call("PUT", f"/bundles/{digest}", f"{name}-home", content=(tmp_path / "bundle").read_bytes())
    spec = {"work": plan.work.model_dump(mode="json"), "bundle": digest}
    run_id = place.call("POST", "/runs", f"{name}-home", json=spec).json()["id"]
    wait_for(lambda: place.call("GET", f"/runs/{run_id}", f"{name}-home").json()["state"] == "succeeded", "the run")

    told = json.loads(place.call("GET", f"/runs/{run_id}/log", f"{name}-home").json()["text"])
    accounts = [os.environ.get(each) for each in ("HOME", "USER", "LOGNAME")]
    assert told == ([str(place.service.home / home), name, name] if home else accounts)
    if home:
        assert (place.service.home / home / ".cached").exists()
        assert stat.S_IMODE((place.service.home / home).stat().st_mode) == 0o700


def test_a_hub_in_trouble_is_said_and_known_tokens_go_on(place: Place) -> None:
    place.hub.user("emil", "emil-1")
    assert place.call("GET", "/catalog", "ann-1").status_code == 200
    place.hub.is_down = True
    try:
        answer = place.call("GET", "/catalog", "emil-1")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "hub_unreachable")
        assert place.call("GET", "/catalog", "ann-1").status_code == 200
    finally:
        place.hub.is_down = False
    assert place.call("GET", "/catalog", "emil-1").status_code == 200


def test_many_runs_of_ann_keep_bobs_from_nothing(place: Place, tmp_path: Path) -> None:
    """Each needs the whole computer; bob's, submitted last, goes before all of ann's but those that began before."""
    plan = plan_bundle(find_work(str(write(tmp_path, train__py="1")), tmp_path), limit_bytes=1 << 20)
    sha256, ids = write_bundle(plan, tmp_path / "bundle"), []
    spec = {"work": plan.work.model_dump(mode="json"), "bundle": sha256, "machine": "whole"}
    for token in ("ann-1", "bob-1"):
        place.call("PUT", f"/bundles/{sha256}", token, content=(tmp_path / "bundle").read_bytes())
    for token in ("ann-1",) * 6 + ("bob-1",):
        made = place.call("POST", "/runs", token, json=spec | {"priority": 100 if token == "ann-1" else -100})
        assert made.status_code == 201, made.text
        ids.append(made.json()["id"])
    bobs = ids[-1]
    for to in ({"before": ids[-2]}, {"before": place.run_id}):
        assert place.call("POST", f"/runs/{bobs}/move", "bob-1", json={"to": to}).json()["error"]["code"] in {
            "unknown_run",
            "not_waiting",  # it has begun by now
        }
    records = []
    for run_id in ids:
        path, token = f"/runs/{run_id}", "bob-1" if run_id == bobs else "ann-1"
        wait_for(lambda p=path, t=token: place.call("GET", p, t).json()["state"] == "succeeded", f"the end of {run_id}")
        records.append(place.call("GET", path, token).json())
    submitted = records[-1]["queued_at"]
    began_later = [record["id"] for record in records if record["attempts"][0]["created_at"] > submitted]
    assert bobs in began_later
    order = sorted(records, key=lambda record: str(record["attempts"][0]["created_at"]))
    later = [record["id"] for record in order if record["id"] in began_later]
    assert bobs in later[:2], "ann's runs went before bob's, again and again"
    assert len(later) > 2, "nothing had to wait"
