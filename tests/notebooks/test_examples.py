"""Both example notebooks, unchanged, three ways: in a kernel, by papermill, as a run; judged by what they recorded."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.cli_driver import terminal
from tests.conftest import TEST_HOME, image_python

ROOT = Path(__file__).resolve().parents[2]
WAYS_TIMEOUT_S = 400
EXAMPLES = {
    "tensorflow_image_cnn": {
        "image": "tensorflow",
        "model": "digits-cnn",
        "formats": {"onnx", "savedmodel"},
        "accuracy": 0.95,
    },
    "pytorch_text_lstm": {"image": "pytorch", "model": "language-lstm", "formats": {"onnx", "pt2"}, "accuracy": 0.82},
}

pytestmark = pytest.mark.timeout(WAYS_TIMEOUT_S + 60)


@pytest.fixture(params=list(EXAMPLES))
def name(request):
    return request.param


@pytest.fixture
def place(name):
    """A terminal that stands in a copy of the examples, with the built images and nothing else."""
    with terminal() as made:
        image_python(EXAMPLES[name]["image"])
        (made.home / "envs").symlink_to(TEST_HOME / "envs")
        shutil.copytree(ROOT / "notebooks", made.cwd, dirs_exist_ok=True)
        yield made


def points_of(lines, name):
    return [(line["step"], line["values"][name]) for line in lines if name in line["values"]]


def run_in_kernel(place, name, monkeypatch, **parameters):
    """Execute a notebook cell by cell in its image's kernel; its metrics, its checkpoints, the executed notebook.

    A service is alive, as on a started platform.
    """
    assert place.json("runs")["items"] == []
    python = image_python(EXAMPLES[name]["image"])
    kernels = place.cwd / ".kernels" / "kernels" / "image"
    kernels.mkdir(parents=True, exist_ok=True)
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernels / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "image", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(kernels.parent.parent))
    monkeypatch.setenv("ATELIER_HOME", str(place.home))
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4)
    at = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    source = "\n".join(f"{key} = {value!r}" for key, value in parameters.items())
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(source))
    before = set((place.cwd / ".atelier").glob("2*"))
    client = NotebookClient(
        notebook, timeout=WAYS_TIMEOUT_S, kernel_name="image", resources={"metadata": {"path": str(place.cwd)}}
    )
    client.execute()
    (folder,) = set((place.cwd / ".atelier").glob("2*")) - before
    lines = [json.loads(line) for line in (folder / "spool" / "metrics.jsonl").read_text().splitlines()]
    return lines, sorted((folder / "spool" / "checkpoints").iterdir()), notebook


def test_in_a_kernel_it_reaches_its_accuracy_and_publishes_its_model(place, name, monkeypatch):
    wanted = EXAMPLES[name]
    lines, checkpoints, notebook = run_in_kernel(place, name, monkeypatch)
    assert points_of(lines, "test_accuracy")[-1][1] >= wanted["accuracy"]
    losses = [value for _, value in points_of(lines, "loss")]
    assert losses[-1] < losses[0] / 2
    assert checkpoints
    (version,) = place.json("models", "ls")["items"]
    assert (version["name"], version["version"], version["run"]) == (wanted["model"], 1, None)
    check_card(version["card"], wanted)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert pictures
    assert [one.metadata for one in pictures if "needs_background" in str(one.metadata)] == [], "drawn on a box"
    shown = [output.get("data", {}) for output in outputs]
    assert {"name": wanted["model"], "version": 1} in [data.get("application/vnd.atelier.model+json") for data in shown]


def check_card(card, wanted):
    assert set(card["formats"]) == wanted["formats"]
    assert card["metrics"]["test_accuracy"] >= wanted["accuracy"]
    assert len(card["labels"]) == card["signature"]["outputs"][0]["shape"][1]
    for report in card["formats"].values():
        assert report["verdict"] == "equal"
        assert [row["batch"] for row in report["batches"]] == [1, 2, 7, 32]
        assert all(row["labels_equal"] == 1 for row in report["batches"])


def test_as_a_background_run_its_record_is_whole(place, name):
    wanted = EXAMPLES[name]
    words = ["submit", f"{name}.ipynb", "--image", wanted["image"], "--wait"]
    done = place.type(*words, timeout_s=WAYS_TIMEOUT_S)
    assert done.code == 0, done
    run = place.json("show", "last")
    assert run["state"] == "succeeded"
    assert run["metrics"]["test_accuracy"] >= wanted["accuracy"]
    assert run["progress"]["done"] == run["progress"]["total"]
    (version,) = place.json("models", "ls")["items"]
    assert version["run"] == run["id"] == version["card"]["lineage"]["run"]
    check_card(version["card"], wanted)
    place.type("fetch", run["id"], "-o", "out")
    assert (place.cwd / "out" / "confusion.png").read_bytes().startswith(b"\x89PNG")
    place.type("models", "fetch", wanted["model"], "-o", "package")
    manifest = next(place.cwd.glob("package/**/MANIFEST.sha256"))
    checked = subprocess.run(
        ["sha256sum", "--quiet", "-c", manifest.name], cwd=manifest.parent, timeout=60, check=False
    )
    assert checked.returncode == 0


def test_by_papermill_a_parameter_arrives_and_the_output_notebook_is_local(place, name):
    wanted = EXAMPLES[name]
    argv = [sys.executable, "-m", "papermill", f"{name}.ipynb", "out.ipynb", "-p", "epochs", "2", "--engine", "atelier"]
    environ = place.environ | {"ATELIER_IMAGE": wanted["image"]}
    done = subprocess.run(
        argv, cwd=place.cwd, env=environ, capture_output=True, text=True, timeout=WAYS_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    run = place.json("show", "last")
    assert (run["state"], run["spec"]["params"]) == ("succeeded", {"epochs": 2})
    assert run["progress"]["total"] == 2
    executed = nbformat.read(place.cwd / "out.ipynb", 4)
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert "injected-parameters" in [tag for cell in code for tag in cell.metadata.get("tags", [])]
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]


def test_a_wrong_parameter_is_refused_before_anything_runs(place, name):
    done = place.type("submit", f"{name}.ipynb", "--image", EXAMPLES[name]["image"], "-p", "epoch", "3")
    assert done.code == 2
    assert "epochs" in done.err
    assert place.json("runs")["items"] == []
    assert not os.path.exists(place.cwd / ".atelier")
