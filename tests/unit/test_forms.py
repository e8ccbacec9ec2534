"""The forms' logic, without a browser: fields, values, errors beside their field, the code that does the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest

from atelier.errors import NotAllowed, RefusedInput
from atelier.exporters.report import BatchParity, FormatReport, Latency, Tolerance
from atelier.widgets import DataBrowser, TrainForm
from atelier.widgets.browsing import Browsing, code_for
from atelier.widgets.exporting import as_error as export_error
from atelier.widgets.exporting import rows_of
from atelier.widgets.training import Training, as_error, as_field, as_machine, read_values
from atelier.widgets.training import code_for as submit_code
from atelier.works.parameters import Parameter

PARAMETERS = """
epochs: int = 5  # passes over the data
rate = 1e-3
name: str = "digits"
augment = True
layers = [64, 32]
seed: "int | None" = None
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Training:
    cells = [nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell("1")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "train.ipynb")
    (tmp_path / "big.bin").write_bytes(b"x" * 1000)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return Training("train.ipynb")


def test_fields_come_from_the_parameters_cell(work: Training) -> None:
    fields = {field["name"]: field for field in work.describe()["fields"]}
    assert {name: field["type"] for name, field in fields.items()} == {
        "epochs": "int", "rate": "float", "name": "str", "augment": "bool", "layers": "list", "seed": "int",
    }  # fmt: skip
    assert {name: field["text"] for name, field in fields.items()} == {
        "epochs": "5", "rate": "0.001", "name": "digits", "augment": "true", "layers": "[64, 32]", "seed": "",
    }  # fmt: skip
    assert fields["epochs"]["help"] == "passes over the data"
    assert fields["seed"]["nullable"]
    json.dumps(work.describe())


def test_only_changed_values_are_sent_with_their_types(work: Training) -> None:
    values = {"epochs": "7", "rate": "1", "name": "5", "augment": "false", "layers": "[64, 32]", "seed": "3"}
    answer = work.check(values)
    assert answer["errors"] == []
    assert answer["changed"] == ["augment", "epochs", "name", "rate", "seed"]
    assert answer["code"] == (
        'atelier.submit("train.ipynb", params={"epochs": 7, "rate": 1.0, "name": "5", "augment": False, "seed": 3})'
    )


def test_each_wrong_field_has_its_own_error(work: Training) -> None:
    answer = work.check({"epochs": "five", "layers": "{", "rate": "NaN", "seed": ""})
    assert [(error["field"], error["code"]) for error in answer["errors"]] == [
        ("parameter:epochs", "wrong_type"),
        ("parameter:rate", "not_json"),
        ("parameter:layers", "wrong_type"),
    ]
    assert all(error["hint"] for error in answer["errors"])


@pytest.mark.parametrize(
    ("parameter", "text", "params", "code"),
    [
        (Parameter("a", "int", 1), "", {}, None),
        (Parameter("a", "int", 1, nullable=True), "", {"a": None}, None),
        (Parameter("a", "int", required=True), "", {}, "missing_parameter"),
        (Parameter("a", "int", required=True), "2", {"a": 2}, None),
        (Parameter("a", "str", "x"), "", {"a": ""}, None),
        (Parameter("a", "str", "x", choices=("x", "y")), "y", {"a": "y"}, None),
        (Parameter("a", "str", "x", choices=("x", "y")), "z", {}, "not_a_choice"),
        (Parameter("a", "int", 1, choices=(1, 2)), "2", {"a": 2}, None),
        (Parameter("a", "any"), "{'b': 1}", {"a": {"b": 1}}, None),
        (Parameter("a", "float", 0.5), "__import__('os')", {}, "wrong_type"),
        (Parameter("a", "int", 1), "9" * 400, {}, "not_json"),
    ],
)
def test_a_value_is_read_by_its_type(parameter: Parameter, text: str, params: dict[str, Any], code: str | None) -> None:
    found, errors = read_values((parameter,), {"a": text})
    assert found == params
    assert [error["code"] for error in errors] == ([code] if code else [])


@pytest.mark.parametrize(
    ("text", "code"),
    [("[1]", "not_json"), ("{", "not_json"), ('{"a-b": 1}', "not_identifier"), ('{"a": NaN}', "not_json")],
)
def test_unknown_parameters_are_one_json_object(text: str, code: str) -> None:
    assert read_values(None, {"*": '{"a": 1}'}) == ({"a": 1}, [])
    assert read_values(None, {}) == ({}, [])
    _, errors = read_values(None, {"*": text})
    assert [(error["field"], error["code"]) for error in errors] == [("parameter:*", code)]


@pytest.mark.parametrize(
    ("code", "detail", "field"),
    [
        ("unknown_machine", {}, "machine"),
        ("image_not_allowed", {}, "image"),
        ("bundle_too_large", {}, "files"),
        ("missing_parameter", {"missing": ["a"]}, "parameter:a"),
        ("wrong_type", {"name": "b"}, "parameter:b"),
        ("bad_quantity", {}, "timeout"),
        ("unreachable", {}, ""),
    ],
)
def test_an_error_finds_its_field(code: str, detail: dict[str, Any], field: str) -> None:
    assert as_error(NotAllowed(code, "no", detail=detail))["field"] == field


def test_a_wrong_form_is_not_submitted(work: Training) -> None:
    with pytest.raises(RefusedInput) as refused:
        work.submit({"epochs": "five"})
    assert refused.value.code == "wrong_type"


def test_files_that_go_along_are_told_with_sizes(work: Training) -> None:
    plan = work.files()
    assert [file["path"] for file in plan["files"]] == ["train.ipynb"]
    assert plan["size_bytes"] == Path("train.ipynb").stat().st_size


@pytest.mark.parametrize(
    ("order", "code"),
    [
        ({"image": "pytorch", "machine": None, "retries": 0, "name": ""}, 'atelier.submit("a b.py", image="pytorch")'),
        ({"timeout": "2h", "retries": 3, "foreign": 1}, 'atelier.submit("a b.py", timeout="2h", retries=3)'),
    ],
)
def test_the_code_says_what_the_form_does(order: dict[str, Any], code: str) -> None:
    assert submit_code("a b.py", {}, order) == code


def test_a_field_of_a_choice_lists_texts() -> None:
    assert as_field(Parameter("a", "int", 2, choices=(1, 2)))["choices"] == ["1", "2"]


def test_browsing_reads_home_and_gives_code(work: Training) -> None:
    browsing = Browsing()
    assert [item["name"] for item in browsing.listing("home", "")["items"]] == ["big.bin", "train.ipynb"]
    look = browsing.look("home", "train.ipynb")
    assert look["cells"][0]["tags"] == ["parameters"]
    assert look["code"] == 'atelier.data.preview("home/train.ipynb")'
    assert code_for("home/a'b.csv", budget_bytes=5) == 'atelier.data.preview("home/a\'b.csv", budget_bytes=5)'


def test_without_a_service_only_home_is_listed(work: Training, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "nothing"))
    monkeypatch.delenv("ATELIER_URL", raising=False)
    assert Browsing().roots() == {"items": [{"name": "home", "title": "Home"}], "more": True}


def test_a_form_is_a_plain_line_where_nothing_draws_it(work: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_RUN_DIR", "/tmp/run")
    for form, line in (
        (DataBrowser("home", "data"), "DataBrowser(home/data)"),
        (TrainForm("train.ipynb"), "TrainForm(train.ipynb)"),
    ):
        bundle, _ = form._repr_mimebundle_()
        assert repr(form).startswith(line)
        assert set(bundle) == {"text/plain", "text/html"}
        assert form.comm is None


def test_a_form_answers_and_tells_its_errors(work: Training) -> None:
    sent: list[Any] = []
    form = DataBrowser()
    form.send = sent.append  # type: ignore[method-assign]
    form._take(form, {"id": "1", "ask": "listing", "with": {"root": "home", "path": ""}}, None)
    form._take(form, {"id": "2", "ask": "listing", "with": {"root": "home", "path": ".."}}, None)
    with pytest.raises(LookupError):
        form._take(form, {"id": "3", "ask": "__init__"}, None)
    form._take(form, "nonsense", None)
    assert [message["id"] for message in sent] == ["1", "2", "3"]
    assert sent[0]["answer"]["total"] == 2
    assert sent[1]["error"]["code"] == "bad_path"
    assert sent[2]["error"]["code"] == "internal"


def test_a_wrong_path_is_refused_where_the_form_is_made() -> None:
    with pytest.raises(RefusedInput):
        DataBrowser("home", "../x")


def report(*, equal: bool) -> FormatReport:
    batches = [
        BatchParity(batch=1, max_abs=1e-7, max_rel=0.0, labels_equal=1.0, within=equal),
        BatchParity(batch=1, dims={"time": 3}, max_abs="nan", max_rel=0.0, labels_equal=None, within=equal),
    ]
    return FormatReport(
        size_bytes=10, files=["model.onnx"], batches=batches, latency_ms=Latency(source=2.0, exported=1.0, threads=1),
        latency_large_ms=None, tolerance=Tolerance(abs=1e-4, rel=1e-3), seconds=1,
        verdict="equal" if equal else "different",
    )  # fmt: skip


def test_parity_rows_name_the_format_once_and_latency_where_it_was_measured() -> None:
    rows = rows_of("onnx", report(equal=True).model_dump(mode="json"))
    assert [(row["format"], row["batch"], row["source_ms"], row["verdict"]) for row in rows] == [
        ("onnx", "1", 2.0, "equal"),
        ("", "1, time 3", None, None),
    ]


def test_a_machine_is_told_with_the_names_that_people_say() -> None:
    machine = {"name": "gpu-2", "cpu": 4, "accelerators": {"nvidia.com/gpu": 2}}
    assert as_machine(machine) == {"name": "gpu-2", "cpu": 4, "accelerators": {"NVIDIA GPU": 2}}


def test_a_refused_export_shows_its_numbers() -> None:
    detail = {"formats": {"onnx": report(equal=False).model_dump(mode="json")}}
    told = export_error(RefusedInput("parity_failed", "differs", detail=detail))
    assert [row["within"] for row in told["rows"]] == [False, False]
    assert told["rows"][1]["max_abs"] == "nan"
