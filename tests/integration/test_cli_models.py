"""``atelier models`` and ``atelier export`` over models that a run and a folder have made."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.cli_driver import Terminal, terminal

pytestmark = pytest.mark.timeout(120)

PACK = """
import sys
from pathlib import Path

from atelier.exporters.card import EnvironmentLock, Lineage, ModelCard
from atelier.exporters.package import seal
from atelier.exporters.report import BatchParity, FormatReport, Latency, Tolerance
from atelier.exporters.signature import Signature, TensorSpec


def report(file):
    return FormatReport(
        size_bytes=7, files=[file], verdict="equal", seconds=1.5,
        batches=[BatchParity(batch=n, max_abs=1e-7, max_rel=2e-6, labels_equal=1.0, within=True) for n in (1, 2, 32)],
        latency_ms=Latency(source=0.5, exported=0.25, batch=1, threads=1), latency_large_ms=None,
        tolerance=Tolerance(abs=1e-4, rel=1e-3),
    )


def package(name, folder, text="weights"):
    folder = Path(folder)
    folder.mkdir(parents=True)
    (folder / "model.tflite").write_text(text)
    (folder / "weights-00000").write_text(text + " native")
    spec = TensorSpec(name="x", dtype="float32", shape=["batch", 4])
    seal(folder, ModelCard(
        name=name, framework="pytorch", frameworks={"torch": "2"}, signature=Signature(inputs=[spec], outputs=[spec]),
        lineage=Lineage(run=None), formats={"lite": report("model.tflite"), "raw": report("weights-00000")},
        environment=EnvironmentLock(python="3.11.7", packages=[]),
    ))
    return folder


def train(text: str = "weights"):
    import atelier
    atelier.current_run().add_model("digits", package("digits", "made", text))


if __name__ == "__main__":
    package(sys.argv[1], sys.argv[2])
"""


@pytest.fixture(scope="module")
def there() -> Iterator[Terminal]:
    with terminal() as place:
        place.write("pack.py", PACK)
        place.write("plain.py", "print(1)\n")
        first = place.type("submit", "pack:train", "--wait")
        assert first.code == 0, first
        second = place.type("submit", "pack:train", "-p", "text", "better", "--wait")
        assert second.code == 0, second
        yield place


def test_models_of_runs_are_listed(there: Terminal) -> None:
    (model,) = there.json("models", "ls")["items"]
    newest = there.json("show", "last")["id"]
    assert (model["name"], model["version"], model["run"]) == ("digits", 2, newest)
    listed = there.type("models", "ls").out
    assert "digits@2" in listed
    assert "lite, raw" in listed


def test_a_model_is_shown_with_its_parity(there: Terminal) -> None:
    assert there.json("models", "show", "digits")["version"] == 2
    assert there.json("models", "show", "digits@1")["version"] == 1
    shown = there.type("models", "show", "digits@v1").out
    assert shown.startswith("digits@1\n")
    for text in ("lite", "raw", "1.0e-07", "100.00%", "equal", "MANIFEST.sha256"):
        assert text in shown


def test_an_alias_names_a_version(there: Terminal) -> None:
    assert there.json("models", "alias", "digits@1", "production") == {
        "name": "digits",
        "alias": "production",
        "version": 1,
    }
    assert there.json("models", "show", "digits@production")["version"] == 1
    there.json("models", "alias", "digits", "production")
    assert there.json("models", "show", "digits@production")["version"] == 2
    assert there.json("models", "alias", "digits", "production", "--remove")["version"] is None
    done = there.type("models", "show", "digits@production", "--json")
    assert (done.code, done.document["error"]["code"]) == (3, "unknown_version")


def test_the_model_of_a_run_is_exported(there: Terminal) -> None:
    told = there.json("export", "last", "--name", "digits", "-o", "out")
    assert (told["name"], told["version"]) == ("digits", 2)
    assert (there.cwd / "out/model.tflite").read_text() == "better"
    subprocess.run(["sha256sum", "--quiet", "-c", "MANIFEST.sha256"], cwd=there.cwd / "out", check=True, timeout=20)
    picked = there.json("export", "last", "--format", "lite", "-o", "picked")
    names = [file.split("/")[-1] for file in picked["files"]]
    assert "model.tflite" in names
    assert "model.json" in names
    assert "weights-00000" not in names
    assert list(picked["formats"]) == ["lite"]
    assert "equal" in there.type("export", "last", "--format", "lite", "-o", "picked").out


@pytest.mark.parametrize(
    ("words", "exit_code", "code"),
    [
        (["export", "last", "--format", "onnx"], 3, "unknown_format"),
        (["export", "last", "--name", "digit"], 3, "no_model"),
        (["export", "nothing"], 3, "unknown_run"),
        (["models", "show", "digit"], 3, "unknown_model"),
        (["models", "show", "digits@9"], 3, "unknown_version"),
        (["models", "fetch", "../x"], 3, "unknown_model"),
        (["models", "rm", "digits"], 2, "no_version"),
        (["export", ".", "--format", "lite"], 2, "format_of_folder"),
    ],
)
def test_what_is_wrong_is_said(there: Terminal, words: list[str], exit_code: int, code: str) -> None:
    there.write("model.json", "{}")
    done = there.type(*words, "--json")
    (there.cwd / "model.json").unlink()
    assert (done.code, done.document["error"]["code"]) == (exit_code, code)
    assert done.document["error"]["hint"]


def test_a_run_without_a_model_says_how_one_is_made(there: Terminal) -> None:
    run_id = there.json("submit", "plain.py", "--wait")["id"]
    done = there.type("export", run_id)
    there.type("rm", run_id)
    assert done.code == 3
    assert "atelier.export(" in done.err


def test_a_folder_is_published_and_its_version_deleted(there: Terminal) -> None:
    subprocess.run(
        [sys.executable, "pack.py", "words", "words-model"], cwd=there.cwd, env=there.environ, check=True, timeout=60
    )
    version = there.json("export", "words-model", "--name", "words")
    assert (version["name"], version["version"], version["run"]) == ("words", 1, None)
    fetched = there.json("models", "fetch", "words@1")
    assert fetched["folder"] == "words-1"
    kept = (there.cwd / "words-1/model.tflite").read_bytes()
    noted = next(file["sha256"] for file in version["files"] if file["path"] == "model.tflite")
    assert hashlib.sha256(kept).hexdigest() == noted
    assert there.json("models", "rm", "words@1") == {"removed": "words@1"}
    assert there.type("models", "show", "words").code == 3
    (there.cwd / "words-model/model.tflite").write_text("changed")
    assert there.type("export", "words-model").code == 2
