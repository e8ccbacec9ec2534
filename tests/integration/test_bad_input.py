"""Bad input is one table; each row goes through Python, HTTP, command line and form, with the same code and hint.

What only shows when the code runs (no kernel, a metric that is not finite, an endless line) stands below the table.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

import atelier
from atelier.bundle.archive import PlannedFile, write_archive
from atelier.client.address import live_address
from atelier.errors import AtelierError
from tests.cli_driver import Terminal, notebook, terminal

pytestmark = pytest.mark.timeout(180)

API = "/services/atelier/api/v1"
GOOD = {"good.ipynb": notebook("print(epochs)", parameters="epochs = 1\nrate = 0.1\nword = 'a'")}
FUNCTION = {"work.py": "def add(a: int, b: int = 2):\n    return a + b\n"}


@dataclass(frozen=True)
class Row:
    """One mistake: the files there are, what is submitted, and the code that it must have everywhere.

    A form has a field for each parameter, so that names can't be wrong there, and none for nodes and project; a bundle
    holds no folders, so what is one here is simply not there over HTTP.
    """

    code: str
    files: Mapping[str, str | bytes]
    work: str
    params: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    ways: tuple[str, ...] = ("python", "http", "command line", "form")


@dataclass(frozen=True)
class Refusal:
    """What a user is told."""

    code: str
    hint: str


NAMED = ("python", "http", "command line")

ROWS = {
    "a notebook that is not JSON": Row("bad_notebook", {"x.ipynb": "{ this is no JSON"}, "x.ipynb"),
    "a notebook that is a list": Row("bad_notebook", {"x.ipynb": "[1, 2]"}, "x.ipynb"),
    "a notebook of bytes": Row("bad_notebook", {"x.ipynb": b"\x00\xff\xfe\x80"}, "x.ipynb"),
    "a notebook without cells": Row("bad_notebook", {"x.ipynb": '{"nbformat": 4, "metadata": {}}'}, "x.ipynb"),
    "no parameters cell": Row(
        "no_parameters_cell", {"x.ipynb": notebook("print(1)")}, "x.ipynb", params={"epochs": 1}, ways=NAMED
    ),
    "a syntax error in a cell": Row("syntax_error", {"x.ipynb": notebook("print(1)", "def f(:\n  pass")}, "x.ipynb"),
    "a syntax error in a script": Row("syntax_error", {"x.py": "print(1\n"}, "x.py"),
    "a notebook in another language": Row(
        "not_python", {"x.ipynb": notebook("print(1)").replace('"python"', '"julia"')}, "x.ipynb"
    ),
    "an empty notebook": Row("empty_work", {"x.ipynb": ""}, "x.ipynb"),
    "an empty script": Row("empty_work", {"x.py": ""}, "x.py"),
    "a folder": Row(
        "work_is_directory", {"x.ipynb/inner.txt": "a"}, "x.ipynb", ways=("python", "command line", "form")
    ),
    "a function that is not there": Row("unknown_work", FUNCTION, "work:ad", params={"a": 1}),
    "an unknown parameter": Row("unknown_parameter", GOOD, "good.ipynb", params={"epoch": 1}, ways=NAMED),
    "a wrong type": Row("wrong_type", GOOD, "good.ipynb", params={"epochs": "many"}),
    "a wrong type in a function": Row("wrong_type", FUNCTION, "work:add", params={"a": 1, "b": [1]}),
    "a missing parameter": Row("missing_parameter", FUNCTION, "work:add"),
    "a parameter that is code": Row("not_identifier", GOOD, "good.ipynb", params={"x = 1; import os": 1}, ways=NAMED),
    "a parameter with a hyphen": Row("not_identifier", GOOD, "good.ipynb", params={"batch-size": 1}, ways=NAMED),
    "a keyword as parameter": Row("not_identifier", GOOD, "good.ipynb", params={"lambda": 1}, ways=NAMED),
    "a parameter that is not a number": Row("not_json", GOOD, "good.ipynb", params={"rate": math.nan}),
    "a parameter without end": Row("not_json", GOOD, "good.ipynb", params={"rate": -math.inf}),
    "a number over 64 bits": Row("not_json", GOOD, "good.ipynb", params={"epochs": 2**70}),
    "an unknown image": Row("unknown_image", GOOD, "good.ipynb", options={"image": "bas"}),
    "an image of others": Row("image_not_allowed", GOOD, "good.ipynb", options={"image": "secret"}),
    "an unknown machine": Row("unknown_machine", GOOD, "good.ipynb", options={"machine": "cpu-smal"}),
    "a machine of others": Row("machine_not_allowed", GOOD, "good.ipynb", options={"machine": "theirs"}),
    "a machine that this computer can't give": Row(
        "machine_not_available", GOOD, "good.ipynb", options={"machine": "giant"}
    ),
    "a name with emoji and slashes": Row("bad_name", GOOD, "good.ipynb", options={"name": "🙂/../x"}),
    "a name of a newline": Row("bad_name", GOOD, "good.ipynb", options={"name": "a\nb"}),
    "no nodes": Row("bad_request", GOOD, "good.ipynb", options={"nodes": 0}, ways=NAMED),
    "more nodes than there are": Row("too_many_nodes", GOOD, "good.ipynb", options={"nodes": 9}, ways=NAMED),
    "a dataset that is not there": Row(
        "unknown_dataset", GOOD, "good.ipynb", options={"data": ["digits@1"]}, ways=NAMED
    ),
    "negative retries": Row("bad_request", GOOD, "good.ipynb", options={"retries": -1}),
    "a project of others": Row("project_not_allowed", GOOD, "good.ipynb", options={"project": "theirs"}, ways=NAMED),
}

SETTINGS = f"""
catalog:
  images:
    - {{name: base, title: Base, python: {sys.executable}}}
    - {{name: secret, python: {sys.executable}, groups: [staff]}}
    - {{name: bare, python: BARE}}
  machines:
    - {{name: cpu-small, cpu: 1, memory: 1Gi}}
    - {{name: theirs, cpu: 1, memory: 1Gi, groups: [staff]}}
    - {{name: giant, cpu: 4000, memory: 1Gi}}
limits: {{log_size: 1Mi}}
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Terminal]:
    with terminal() as plain:
        bare = plain.home / "bare"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True, timeout=60)
        (plain.home / "atelier.yaml").write_text(SETTINGS.replace("BARE", str(bare / "bin/python")))
        made = Terminal(plain.home, plain.cwd, {"ATELIER_IMAGE": ""})
        made.json("runs")
        yield made


@pytest.fixture
def folder(place: Terminal, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh folder to stand in, with the environment of the terminal."""
    with tempfile.TemporaryDirectory(dir=place.cwd) as name:
        monkeypatch.chdir(name)
        for key in ("ATELIER_HOME", "PYTHONPATH"):
            monkeypatch.setenv(key, place.environ[key])
        for key in ("ATELIER_IMAGE", "ATELIER_MACHINE", "ATELIER_URL"):
            monkeypatch.delenv(key, raising=False)
        yield Path(name)


def _write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def by_python(place: Terminal, folder: Path, row: Row) -> Refusal:
    """The row through ``atelier.submit``."""
    with pytest.raises(AtelierError) as refused:
        atelier.submit(row.work, row.params, **row.options)
    return Refusal(refused.value.code, refused.value.hint)


def by_command_line(place: Terminal, folder: Path, row: Row) -> Refusal:
    """The row through ``atelier submit``; without ``--json`` the same is on stderr."""
    words = ["submit", row.work]
    for name, value in row.params.items():
        words += ["-p", name, value if isinstance(value, str) else json.dumps(value)]
    for name, value in row.options.items():
        words += [f"--{name}={each}" for each in (value if isinstance(value, list) else [value])]
    done = Terminal(place.home, folder, place.more).type(*words, "--json")
    error = done.document["error"]
    assert done.code in {2, 4}, done
    assert done.err.startswith(f"error[{error['code']}]: {error['message']}\n")
    assert not error["hint"] or f"hint: {error['hint']}" in done.err
    return Refusal(error["code"], error["hint"])


def by_http(place: Terminal, folder: Path, row: Row) -> Refusal:
    """The row as a program without our client would send it: a bundle of the files, and a spec."""
    answer = _post(place, folder, row)
    assert answer.status_code in {400, 403, 422}, answer.text
    error = answer.json()["error"]
    return Refusal(error["code"], error["hint"])


def _post(place: Terminal, folder: Path, row: Row) -> httpx.Response:
    address = live_address(place.home)
    assert address
    transport = httpx.HTTPTransport(uds=address.socket_path)
    headers = {"Authorization": f"token {address.token}"}
    with httpx.Client(transport=transport, base_url="http://atelier", headers=headers, timeout=60) as http:
        with tempfile.TemporaryDirectory() as made:
            path = Path(made) / "bundle.tar.zst"
            sha256 = write_archive(_planned(folder), path)
            http.put(f"{API}/bundles/{sha256}", content=path.read_bytes()).raise_for_status()
        spec = {"work": _work(row.work), "bundle": sha256, "params": row.params, **row.options}
        return http.post(f"{API}/runs", content=json.dumps(spec), headers={"Content-Type": "application/json"})


def _planned(folder: Path) -> list[PlannedFile]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [PlannedFile(path.relative_to(folder).as_posix(), path, path.stat().st_size) for path in files]


def _work(text: str) -> dict[str, str]:
    kinds = {".ipynb": "notebook", ".py": "script"}
    kind = next(
        (kind for suffix, kind in kinds.items() if text.endswith(suffix)), "function" if ":" in text else "module"
    )
    return {"kind": kind, "target": text, "folder": "."}


def by_form(place: Terminal, folder: Path, row: Row) -> Refusal:
    """The row as the page of a `TrainForm` sends it: the text of each field."""
    from atelier.widgets import TrainForm

    values = {name: value if isinstance(value, str) else json.dumps(value) for name, value in row.params.items()}
    error = TrainForm(row.work).submit(values, **row.options)["error"]
    return Refusal(error["code"], error["hint"])


WAYS: dict[str, Callable[[Terminal, Path, Row], Refusal]] = {
    "python": by_python,
    "http": by_http,
    "command line": by_command_line,
    "form": by_form,
}


@pytest.mark.parametrize("name", ROWS)
def test_bad_input_is_refused_alike_everywhere(place: Terminal, folder: Path, name: str) -> None:
    row = ROWS[name]
    _write(folder, row.files)
    before = _count()
    told = {way: WAYS[way](place, folder, row) for way in row.ways}
    assert {way: refusal.code for way, refusal in told.items()} == dict.fromkeys(row.ways, row.code)
    assert len({refusal.hint for refusal in told.values()}) == 1, told
    assert told["python"].hint, "a refusal says what to do"
    assert _count() == before, "nothing was queued"


def _count() -> int:
    return len(atelier.runs(limit=500))


def _waited(place: Terminal, run_id: str) -> dict[str, Any]:
    place.type("logs", "-f", run_id)
    record: dict[str, Any] = place.json("show", run_id)
    return record


def _typed(place: Terminal, folder: Path, row: Row) -> dict[str, Any]:
    options = [f"--{name}={value}" for name, value in row.options.items()]
    done = Terminal(place.home, folder, place.more).type("submit", row.work, *options, "--wait", "--json")
    record: dict[str, Any] = done.document
    return record


SUBMITS: dict[str, Callable[[Terminal, Path, Row], dict[str, Any]]] = {
    "python": lambda place, folder, row: (
        atelier.submit(row.work, row.params, **row.options).wait(90).record.model_dump(mode="json")
    ),
    "http": lambda place, folder, row: _waited(place, _post(place, folder, row).json()["id"]),
    "command line": _typed,
}


def _each_way(place: Terminal, folder: Path, row: Row) -> list[dict[str, Any]]:
    _write(folder, row.files)
    return [submit(place, folder, row) for submit in SUBMITS.values()]


def test_an_image_without_a_kernel_says_so(place: Terminal, folder: Path) -> None:
    row = Row("kernel_missing", {"x.ipynb": notebook("print(1)")}, "x.ipynb", options={"image": "bare"})
    records = _each_way(place, folder, row)
    assert [record["state"] for record in records] == ["failed"] * 3
    assert [record["reason"] for record in records] == [row.code] * 3
    assert len({record["hint"] for record in records}) == 1


def test_a_metric_that_is_not_finite_is_kept_as_null(place: Terminal, folder: Path) -> None:
    source = "import atelier\natelier.current_run().log(step=1, loss=float('nan'), up=float('inf'), fine=1.5)\n"
    records = _each_way(place, folder, Row("", {"x.py": source}, "x.py"))
    assert [record["state"] for record in records] == ["succeeded"] * 3
    assert [record["metrics"] for record in records] == [{"loss": None, "up": None, "fine": 1.5}] * 3


def test_a_line_of_2_gb_is_cut_and_the_run_goes_on(place: Terminal, folder: Path) -> None:
    source = (
        "import os\nfor _ in range(2048):\n    left = b'x' * 2**20\n"
        "    while left:\n        left = left[os.write(1, left):]\nprint()\nprint('end')\n"
    )
    _write(folder, {"x.py": source})
    record = _typed(place, folder, Row("", {}, "x.py"))
    assert record["state"] == "succeeded", record
    assert record["attempts"][-1]["log_size_bytes"] <= 2 * 2**20
    text = place.json("logs", record["id"])["text"]
    assert text.startswith("xxx")
    assert len(text) <= 2 * 2**20


def test_odd_file_names_come_back_as_they_were(place: Terminal, folder: Path) -> None:
    names = ["🙂 ärger.txt", "a'b\"c.txt", "%2e%2e.txt", "-rf.txt", "sub folder/x.txt"]
    source = (
        f"from pathlib import Path\nfor name in {names!r}:\n"
        "    Path(name).parent.mkdir(exist_ok=True)\n    Path(name).write_text(name)\n"
    )
    _write(folder, {"x.py": source})
    record = _typed(place, folder, Row("", {}, "x.py"))
    fetched = place.json("fetch", record["id"], "-o", str(folder / "out"))
    for name in names:
        assert (folder / "out" / name).read_text() == name, fetched
