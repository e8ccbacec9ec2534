"""Whatever is sent to the service, it answers as its own description says, and never with an error of its own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from atelier.records import ANY_REASON, RETRY_CHOICES
from atelier.wire import API, PREFIX
from tests.fuzzing import TIMES
from tests.service_driver import SETTINGS, Service, lives, service_over, write

PROGRAM = Path(sys.executable).parent / "schemathesis"
WORK = """
    import atelier
    job = atelier.current_run()
    job.log(step=1, loss=0.5)
    open("out.txt", "w").write("left behind")
"""
LIMITS = "limits: {runs_per_user: 1}\n"
EVENTS = "text/event-stream; charset=utf-8"
GPUS = "GPU-11111111-aaaa,GPU-22222222-bbbb"

LONGEST_S = 200 * TIMES
"""On a machine that does much else; alone it takes a tenth."""

CONFIG = """
seed = 1
request-timeout = 20
continue-on-failure = true
hooks = {hooks}
[generation]
deterministic = {deterministic}
max-examples = {examples}
database = "none"
allow-x00 = false
[phases.coverage]
unexpected-methods = ["PATCH", "OPTIONS"]
extra-data-sources = {{ responses = false }}
[phases.fuzzing]
extra-data-sources = {{ responses = false }}
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 401, 403, 404, 409, 413, 422]
"""
"""What is not a fault of the form (a bundle that was not uploaded) is judged by a check of our own, ``http_checks``."""


@dataclass
class Place:
    """A service with things in it: a finished run and one to remove, a live one, a model, and files of data.

    ``run_token`` is that of the live one's attempt, whose agent stands still, and says nothing in between.
    """

    service: Service
    finished: str
    removable: str
    live: str
    run_token: str
    bundle: str

    @property
    def url(self) -> str:
        return str(self.service.note["url"])

    def values(self) -> dict[str, list[str]]:
        """Parameter → what there is, for half of the examples: all others name nothing."""
        return {
            "run_id": [self.finished, self.live, "last"],
            "path": ["out.txt", "weights.safetensors", "a.csv", "."],
            "name": ["digits"],
            "version": ["1", "latest", "production"],
            "alias": ["production"],
            "sha256": [self.bundle],
            "root": [f"runs/{self.finished}", "datasets/samples"],
            "kernel": ["k-1"],
            "stream": ["log", "metrics"],
        }

    def bodies(self) -> dict[str, dict[str, Any]]:
        """Schema → property → what a body that is taken has there."""
        submit = {
            "work": {"enum": [{"kind": "script", "target": "train.py", "folder": "."}]},
            "bundle": {"enum": [self.bundle]},
            "image": {"enum": ["plain", None]},
            "machine": {"enum": ["tiny", "gpu"]},
            "retry_on": {"type": "array", "items": {"enum": [*RETRY_CHOICES, ANY_REASON]}, "maxItems": 2},
            "nodes": {"enum": [1]},
            "data": {"type": "array", "maxItems": 0},
        }
        return {
            "SubmitBody": submit,
            "AliasBody": {"version": {"enum": [1]}},
            "LeaseBody": {"machine": {"enum": ["gpu"]}},
        }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("fuzz")
    write(folder / "data", a__csv="x,y\n1,2\n", b__json='{"a": [1, null]}')
    roots = f"  roots: [{{name: samples, url: 'file://{folder}/data'}}]\n"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings, more = SETTINGS + roots + LIMITS, {"ATELIER_TEST_GPUS": GPUS}
    with service_over(settings=settings, options=("--port", str(port)), more=more) as service:
        work = write(folder / "work", train__py=WORK)
        finished, removable = (service.finish(work).id for _ in range(2))
        live = service.submit(write(folder / "live", wait__py="import time\ntime.sleep(3600)"))
        service.wait(live, "running")
        publish(service)
        agents = service.agents(live)
        for pid in agents:
            os.kill(pid, signal.SIGSTOP)
        try:
            token = (service.attempt_folder(live) / "token").read_text().strip()
            yield Place(service, finished, removable, live, token, service.run(finished).spec.bundle)
        finally:
            for pid in filter(lives, agents):
                os.kill(pid, signal.SIGCONT)


def publish(service: Service) -> None:
    """A model of one file, with an alias."""
    data = b"\x08\0\0\0\0\0\0\0{}      "
    digest = hashlib.sha256(data).hexdigest()
    with service.http as http:
        assert http.put(f"{API}/uploads/{digest}", content=data).status_code == 201
        files = [{"path": "weights.safetensors", "size_bytes": len(data), "sha256": digest}]
        made = http.post(f"{API}/models", json={"name": "digits", "card": {}, "files": files})
        assert made.status_code == 201, made.text
        assert http.put(f"{API}/models/digits/aliases/production", json={"version": 1}).status_code == 200


def fuzz(place: Place, folder: Path, token: str, *choice: str, examples: int = 3) -> None:
    """Let schemathesis do its worst with all its checks; fails with what it says."""
    hooks = Path(__file__).with_name("http_checks.py")
    how = {"deterministic": str(TIMES == 1).lower(), "examples": examples * TIMES, "hooks": json.dumps(str(hooks))}
    config = folder / "schemathesis.toml"
    config.write_text(CONFIG.format(**how) + known_values(place))
    argv = [PROGRAM, "--config-file", config, "run", f"{place.url}{PREFIX}/openapi.json", "--checks=all", "--no-color"]
    phases = "coverage,fuzzing" if TIMES == 1 else "coverage,fuzzing,stateful"
    argv += [f"--header=Authorization: {token}", f"--phases={phases}", "--warnings=off", *choice]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "ATELIER_FUZZ_BODIES": json.dumps(place.bodies())}
    done = subprocess.run(argv, cwd=folder, env=environ, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    assert "generated" in done.stdout, "nothing was tried"


def known_values(place: Place) -> str:
    """The part of the configuration that names what there is; what one operation removes is no other's."""
    values = place.values()
    lines = [f"[dictionaries]\nremovable = {{ values = {json.dumps([place.removable])} }}"]
    lines += [f'"{name}" = {{ values = {json.dumps(known)} }}' for name, known in values.items()]
    lines += ["[parameters]", *(f'"{name}" = {{ dictionary = "{name}", probability = 0.5 }}' for name in values)]
    removal = f"DELETE {API}/runs/{{run_id}}"
    lines += ["[[operations]]", f'include-name = "{removal}"', "[operations.parameters]"]
    lines += ['"run_id" = { dictionary = "removable", probability = 0.5 }']
    return "\n".join(lines) + "\n"


# -- who calls ----------------------------------------------------------------------------------------------------
def operations(place: Place) -> list[tuple[str, str]]:
    """Method and path of everything there is, with things that there are in it."""
    document = httpx.get(f"{place.url}{PREFIX}/openapi.json").json()
    found = []
    for path, methods in document["paths"].items():
        named = re.sub(r"{(\w+)}", lambda match: place.values()[match[1]][0], path)
        found += [(method.upper(), named) for method in methods]
    return found


def test_nobody_unknown_is_answered_anything_else(place: Place) -> None:
    user, agent = f"token {place.service.token}", f"run {place.run_token}"
    wrong = (None, "token x", "run x", "Basic YTpi", b"Bearer \xe9")
    with httpx.Client(base_url=place.url, timeout=30) as http:
        for method, path in operations(place):
            other = user if "/agent/" in path else agent
            for authorization in (*wrong, other):
                headers = {} if authorization is None else {"Authorization": authorization}
                answer = http.request(method, path, headers=headers)
                assert answer.status_code == 401, f"{method} {path} for {authorization!r}: {answer.text}"
                assert method == "HEAD" or answer.json()["error"]["code"] == "unauthenticated"


def test_the_description_tells_of_each_answer(place: Place) -> None:
    document: dict[str, Any] = httpx.get(f"{place.url}{PREFIX}/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            schemes = [list(one) for one in told["security"]]
            assert schemes == [["agent" if "/agent/" in path else "user"]], (method, path)
            for status in ("4XX", "5XX"):
                content = told["responses"][status]["content"]
                assert content == {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}}


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/runs", "GET, POST"),
        ("/runs/last", "DELETE, GET"),
        ("/models/a/aliases/b", "DELETE, PUT"),
        ("/catalog", "GET"),
    ],
)
def test_one_who_asks_for_another_method_is_told_all_there_are(place: Place, path: str, methods: str) -> None:
    with place.service.http as http:
        answer = http.options(API + path)
    assert (answer.status_code, answer.headers["Allow"]) == (405, methods)


def test_events_begin_or_are_refused(place: Place) -> None:
    """Which schemathesis leaves out: a stream of them has no end."""
    user = {"Authorization": f"token {place.service.token}"}
    with httpx.Client(base_url=f"{place.url}{API}", headers=user, timeout=30) as http:
        for path in (f"/runs/{place.finished}/events", "/runs/last/events", "/events"):
            for number in ("", "0", "-1", "x", "9" * 30, "1e9", "٣"):
                with http.stream("GET", path, headers={"Last-Event-ID": number.encode()}) as answer:
                    assert (answer.status_code, answer.headers["content-type"]) == (200, EVENTS), number
                    assert next(answer.iter_bytes()).startswith(b": atelier")
        for run in ("nobody", "r-", "r-%F0%9F%99%82", "%20", "r-aaaaaaaaaa"):
            answer = http.get(f"/runs/{run}/events")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_run"), run


# -- what is sent -------------------------------------------------------------------------------------------------
@pytest.mark.timeout(LONGEST_S + 20)
def test_agents(place: Place, tmp_path: Path) -> None:
    """All but the report of an attempt's end, after which it is told nothing else than that it is over."""
    choice = ["--include-path-regex=/agent/", f"--exclude-path={API}/agent/finish"]
    fuzz(place, tmp_path, f"run {place.run_token}", *choice)


@pytest.mark.timeout(LONGEST_S + 20)
def test_agents_at_the_end(place: Place, tmp_path: Path) -> None:
    fuzz(place, tmp_path, f"run {place.run_token}", f"--include-path={API}/agent/finish")


@pytest.mark.timeout(LONGEST_S + 20)
def test_users(place: Place, tmp_path: Path) -> None:
    """All but the streams of events, which never end."""
    before = len(place.service.ids())
    fuzz(place, tmp_path, f"token {place.service.token}", "--exclude-path-regex=(/agent/|events$)")
    assert len(place.service.ids()) > before, "nothing that was sent made a run"
