"""``papermill --engine atelier`` as a user types it: same record as a submit, papermill's output file and exit code."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atelier.client import Client

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def client(atelier_home: Path) -> Iterator[Client]:
    """The embedded service of a fresh home; it is ended with the test."""
    with Client.find() as found:
        found.catalog()
        yield found
    noted = json.loads((atelier_home / "run/service.json").read_text())
    os.kill(noted["pid"], signal.SIGTERM)
    deadline = time.monotonic() + 20
    while Path(f"/proc/{noted['pid']}").exists() and _state(noted["pid"]) != "Z":
        assert time.monotonic() < deadline, "the service did not end"
        time.sleep(0.05)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


@pytest.fixture
def work(tmp_path: Path, client: Client) -> Path:
    """A folder with a helper module, and on the path the entry point that the distribution declares."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["papermill.engine"]
    info = tmp_path / "dist/jupyterhub_atelier-0.dist-info"
    info.mkdir(parents=True)
    lines = [f"{name} = {target}" for name, target in declared.items()]
    (info / "entry_points.txt").write_text("\n".join(["[papermill.engine]", *lines, ""]))
    (tmp_path / "work").mkdir()
    (tmp_path / "work/helper.py").write_text("def twice(x): return 2 * x\n")
    return tmp_path / "work"


def write(folder: Path, *cells: str, parameters: str = "epochs = 3", **metadata: Any) -> None:
    tagged = {"cell_type": "code", "source": parameters, "metadata": {"tags": ["parameters"]}}
    plain = [{"cell_type": "code", "source": source, "metadata": {}} for source in cells]
    made = [{**cell, "outputs": [], "execution_count": None} for cell in (tagged, *plain)]
    spec = {"name": "no-such-kernel", "display_name": "x", "language": "python"}
    whole = {"cells": made, "metadata": {"kernelspec": spec, **metadata}, "nbformat": 4, "nbformat_minor": 4}
    (folder / "in.ipynb").write_text(json.dumps(whole))


def start(work: Path, *arguments: str, **environ: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT / "extensions"), str(work.parent / "dist")])
    argv = [sys.executable, "-m", "papermill", "in.ipynb", "out.ipynb", "--engine", "atelier", *arguments]
    environment = {**os.environ, "PYTHONPATH": path, **environ}
    return subprocess.Popen(
        argv, cwd=work, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def papermill(work: Path, *arguments: str, **environ: str) -> tuple[int, str]:
    process = start(work, *arguments, **environ)
    said, _ = process.communicate(timeout=120)
    return process.returncode, said


def output(work: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((work / "out.ipynb").read_text())
    return found


def test_run_has_the_record_of_a_submit_and_papermill_s_output(work: Path, client: Client) -> None:
    write(work, "from helper import twice", "print('epochs', twice(epochs))")
    code, said = papermill(work, "-p", "epochs", "5", ATELIER_RETRIES="1")
    assert code == 0, said
    assert "HTTP Request" not in said
    assert re.findall(r"^.*Run r-", re.sub(r"[^\n]*\r", "", said), re.MULTILINE) == ["Run r-"] * said.count("Run r-")
    (record,) = client.runs()["items"]
    assert (record["state"], record["spec"]["params"], record["spec"]["retries"]) == ("succeeded", {"epochs": 5}, 1)
    assert record["spec"]["work"] == {"kind": "notebook", "target": "in.ipynb", "folder": "."}
    made = output(work)
    assert "".join(made["cells"][-1]["outputs"][0]["text"]) == "epochs 10\n"
    tags = [cell["metadata"].get("tags", []) for cell in made["cells"]]
    assert tags == [["parameters"], ["injected-parameters"], [], []]
    assert {cell["metadata"]["papermill"]["status"] for cell in made["cells"]} == {"completed"}
    assert made["metadata"]["papermill"]["parameters"] == {"epochs": 5}
    assert made["metadata"]["papermill"]["run"] == record["id"]


def test_failing_cell_ends_as_papermill_s_own(work: Path, client: Client) -> None:
    write(work, "def f():\n    return 1 / 0", "f()", "print('never')")
    code, said = papermill(work)
    assert code == 1
    assert "papermill.exceptions.PapermillExecutionError" in said
    assert "ZeroDivisionError: division by zero" in said
    assert "/atelier/engine.py" not in said
    made = output(work)
    assert "papermill-error-cell-tag" in made["cells"][0]["metadata"]["tags"]
    assert [cell["source"] for cell in made["cells"] if cell["metadata"].get("papermill", {}).get("exception")] == [
        ["f()"]
    ]


def test_death_of_the_kernel_is_told_in_its_cell(work: Path, client: Client) -> None:
    write(work, "import os, signal", "os.kill(os.getpid(), signal.SIGKILL)")
    code, said = papermill(work)
    assert code == 1
    (record,) = client.runs()["items"]
    assert record["message"] in said
    (broken,) = [cell for cell in output(work)["cells"] if cell.get("outputs")]
    assert broken["source"] == ["os.kill(os.getpid(), signal.SIGKILL)"]
    assert broken["outputs"][0]["evalue"] == record["message"]


@pytest.mark.parametrize(
    ("arguments", "metadata", "code"),
    [
        (["-p", "epoch", "5"], {}, "There is no parameter 'epoch'"),
        (["-p", "epochs", "five"], {}, "'epochs' takes int"),
        ([], {"atelier": {"imgae": "x"}}, "did you mean 'image'"),
        ([], {"atelier": {"image": "nope"}}, "There is no image 'nope'"),
    ],
)
def test_refused_input_makes_no_run(
    work: Path, client: Client, arguments: list[str], metadata: dict[str, Any], code: str
) -> None:
    write(work, "print(1)", **metadata)
    status, said = papermill(work, *arguments)
    assert status == 1
    assert code in said
    assert client.runs()["items"] == []
    if "image" not in code or "imgae" in str(metadata):
        assert not (work / "out.ipynb").exists()


def test_ctrl_c_cancels_the_run(work: Path, client: Client) -> None:
    write(work, "import time\nprint('begun', flush=True)\nfor _ in range(600): time.sleep(0.1)")
    process = start(work)
    deadline = time.monotonic() + 60
    while not [run for run in client.runs()["items"] if run["state"] == "running" and "begun" in _log(client, run)]:
        assert time.monotonic() < deadline, "the run did not begin"
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    (record,) = client.runs()["items"]
    assert record["state"] == "cancelled", said
    assert "begun" in "".join(output(work)["cells"][-1]["outputs"][0].get("text", []))


def _log(client: Client, run: dict[str, Any]) -> str:
    return str(client.log(run["id"])["text"])


def test_papermill_with_cwd_and_output_elsewhere(work: Path, client: Client) -> None:
    write(work, "import helper")
    (work / "elsewhere").mkdir()
    code, said = papermill(work, "--cwd", "elsewhere", "--log-output", "-p", "epochs", "1")
    assert code == 0, said
    assert output(work)["metadata"]["papermill"]["parameters"] == {"epochs": 1}
