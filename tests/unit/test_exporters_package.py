"""Packages: whole or refused, without pickles, readable by people and programs."""

import json
import os
import pickle
import zipfile

import pytest

from atelier.display.bundles import MODEL_TYPE
from atelier.errors import NotFound, RefusedInput
from atelier.exporters import FORMATS, ModelPackage, check_package, export, formats_of
from atelier.exporters.card import EnvironmentLock, Lineage, ModelCard, check_name
from atelier.exporters.formats import exporters_for
from atelier.exporters.onnx_parts import external_files
from atelier.exporters.package import seal
from atelier.exporters.pipeline import _target
from atelier.exporters.provenance import environment_lock, lineage
from atelier.exporters.report import BatchParity, FormatReport, Latency, Tolerance
from atelier.exporters.signature import Signature, TensorSpec
from atelier.registry import publish


def card(name="digits", **changes):
    report = FormatReport(
        size_bytes=2048,
        files=["model.tflite"],
        batches=[
            BatchParity(batch=size, max_abs=1e-7, max_rel=2e-6, labels_equal=1.0, within=True) for size in (1, 2, 32)
        ],
        latency_ms=Latency(source=0.5, exported=0.25, batch=1, threads=2),
        latency_large_ms=Latency(source=2.0, exported=1.0, batch=32, threads=2),
        tolerance=Tolerance(abs=1e-4, rel=1e-3),
        verdict="equal",
        seconds=1.5,
    )
    values = {
        "name": name,
        "framework": "pytorch",
        "frameworks": {"torch": "2.15.0"},
        "signature": Signature(
            inputs=[TensorSpec(name="x", dtype="float32", shape=["batch", 4])],
            outputs=[TensorSpec(name="output", dtype="float32", shape=["batch", 2])],
        ),
        "labels": ["no", "yes"],
        "metrics": {"accuracy": 0.97},
        "lineage": Lineage(run="r-aaaaaaaaaa"),
        "formats": {"native": report},
        "environment": EnvironmentLock(python="3.11.7", packages=["numpy==2.4.6"]),
    }
    return ModelCard(**(values | changes))


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "digits"
    (made / "variables").mkdir(parents=True)
    (made / "model.tflite").write_bytes(b"weights")
    (made / "variables" / "data-00000").write_bytes(b"more weights")
    seal(made, card())
    return made


def test_a_sealed_package_is_read_back_as_it_was(folder):
    package = ModelPackage.read(folder)
    assert package.card == card(created_at=package.card.created_at)
    assert {path.relative_to(folder).as_posix() for path in package.files} == {
        "model.tflite", "variables/data-00000", "model.json", "README.md", "MANIFEST.sha256",
    }  # fmt: skip


def test_the_report_has_the_promised_shape(folder):
    report = json.loads((folder / "model.json").read_text())["formats"]["native"]
    assert report["batches"][0] == {
        "batch": 1, "dims": {}, "max_abs": 1e-7, "max_rel": 2e-6, "labels_equal": 1.0, "within": True,
    }  # fmt: skip
    assert report["latency_ms"] | {"source": 0.5, "exported": 0.25} == report["latency_ms"]
    assert report["verdict"] == "equal"
    assert ModelPackage.read(folder).report["formats"]["native"] == report


def test_the_manifest_is_what_sha256sum_checks(folder):
    assert (
        os.spawnlp(os.P_WAIT, "sh", "sh", "-c", f"cd {folder} && sha256sum --quiet --check --strict MANIFEST.sha256")
        == 0
    )


@pytest.mark.parametrize("missing", ["model.tflite", "variables/data-00000", "README.md"])
def test_a_missing_file_is_named(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(RefusedInput) as refusal:
        check_package(folder)
    assert refusal.value.code == "package_incomplete"
    assert refusal.value.detail["missing"] == [missing]


def test_a_changed_or_added_file_is_named(folder):
    (folder / "model.tflite").write_bytes(b"other weights")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(RefusedInput) as refusal:
        check_package(folder)
    assert refusal.value.code == "package_changed"
    assert refusal.value.detail["changed"] == ["model.tflite", "notes.txt"]


def protobuf(field, content):
    return bytes([field << 3 | 2, len(content)]) + content


def onnx_with(location):
    """The bytes of an ONNX model of one tensor whose data lies in another file (lengths below 128 only)."""
    entries = protobuf(13, protobuf(1, b"location") + protobuf(2, location)) + protobuf(
        13, protobuf(1, b"offset") + protobuf(2, b"0")
    )
    return b"\x08\x0a" + protobuf(7, protobuf(2, b"g") + protobuf(5, b"\x10\x01" + protobuf(8, b"w") + entries))


def test_an_onnx_file_names_the_files_that_it_needs(tmp_path):
    (tmp_path / "model.onnx").write_bytes(onnx_with(b"model.onnx.data"))
    assert external_files(tmp_path / "model.onnx") == {"model.onnx.data"}


@pytest.mark.parametrize("location", [b"model.onnx.data", b"../outside", b"/etc/passwd"])
def test_an_onnx_file_whose_weights_are_not_in_the_package_is_refused(tmp_path, location):
    (tmp_path / "model.onnx").write_bytes(onnx_with(location))
    seal(tmp_path, card())
    with pytest.raises(RefusedInput) as refusal:
        check_package(tmp_path)
    assert refusal.value.code == "package_incomplete"
    assert refusal.value.detail["missing"] == [location.decode()]


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\xff" * 64, onnx_with(b"data")[:-9], b"\x3a\xff\xff\xff\xff\x0f", b"\x0b" * 9]
)
def test_what_is_no_onnx_file_is_refused(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(RefusedInput) as refusal:
        external_files(tmp_path / "model.onnx")
    assert refusal.value.code == "not_onnx"


def test_a_link_in_a_package_is_refused(folder, tmp_path):
    (tmp_path / "secret").write_text("hostile")
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(RefusedInput, match="plain file"):
        check_package(folder)


def test_a_folder_without_a_manifest_is_no_package(tmp_path):
    with pytest.raises(RefusedInput) as refusal:
        ModelPackage.read(tmp_path)
    assert refusal.value.code == "not_a_package"


def pickle_by_name(folder):
    (folder / "model.pth").write_bytes(b"anything")


def pickle_by_content(folder):
    (folder / "weights").write_bytes(pickle.dumps({"a": 1}))


def pickle_in_archive(folder):
    with zipfile.ZipFile(folder / "model.pt2", "w") as archive:
        archive.writestr("m/data/weights/weight_0", b"1234")
        archive.writestr("m/data.pkl", pickle.dumps([1]))


@pytest.mark.parametrize("put", [pickle_by_name, pickle_by_content, pickle_in_archive])
def test_no_pickle_gets_into_a_package(tmp_path, put):
    put(tmp_path)
    with pytest.raises(RefusedInput) as refusal:
        seal(tmp_path, card())
    assert refusal.value.code == "pickle_in_package"
    assert not (tmp_path / "MANIFEST.sha256").exists()


def test_a_package_reads_well_as_text_and_markup(folder):
    package = ModelPackage.read(folder)
    text, bundle = repr(package), package._repr_mimebundle_()
    assert "1.0e-07" in text
    assert "0.250" in text
    assert bundle["text/plain"] == text
    assert "<table" in bundle["text/html"]
    assert MODEL_TYPE not in bundle
    assert package.published_as("digits", 3)._repr_mimebundle_()[MODEL_TYPE] == {"name": "digits", "version": 3}


def test_markup_in_a_folder_is_escaped(tmp_path):
    made = tmp_path / "<img src=x onerror=alert(1)>"
    made.mkdir()
    seal(made, card())
    assert "<img" not in ModelPackage.read(made)._repr_mimebundle_()["text/html"]


def test_the_model_card_names_signature_metrics_and_run(folder):
    text = (folder / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: pytorch\n")
    for words in ("batch × 4", "accuracy 0.97", "r-aaaaaaaaaa", "no, yes", "1.0e-07"):
        assert words in text


@pytest.mark.parametrize("name", ["", "Digits", "a b", "-a", "a/b", "../a", "модель", "😀", "a" * 64, "a_b", None])
def test_names_that_can_not_be_a_models_are_refused(name):
    with pytest.raises(RefusedInput) as refusal:
        check_name(name)
    assert refusal.value.code == "bad_name"


@pytest.mark.parametrize("name", ["a", "digits-cnn", "lstm.v2", "a" * 63])
def test_names_that_can(name):
    assert check_name(name) == name


def test_formats_by_framework():
    assert formats_of("pytorch") == ["onnx", "pt2", "safetensors"]
    assert formats_of("keras") == ["onnx", "savedmodel", "safetensors"]
    assert set(FORMATS) == {*formats_of("pytorch"), *formats_of("keras")}
    assert [one.format for one in exporters_for("keras", ["onnx", "savedmodel", "onnx"])] == ["onnx", "savedmodel"]


@pytest.mark.parametrize("formats", ["pt2", "torchscript", ["onnx", "tflite"], []])
def test_formats_that_keras_has_not_are_refused_with_those_it_has(formats):
    with pytest.raises(RefusedInput) as refusal:
        exporters_for("keras", formats)
    assert refusal.value.code == "unknown_format"
    assert refusal.value.detail["known"] == ["onnx", "savedmodel", "safetensors"]


@pytest.mark.parametrize("model", [None, object(), lambda x: x, {"a": 1}])
def test_what_is_no_model_is_refused(model):
    with pytest.raises(RefusedInput) as refusal:
        export(model, [1])
    assert refusal.value.code == "unsupported_model"


def test_only_an_older_package_is_overwritten(folder, tmp_path):
    assert _target(folder, "digits") == folder
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.tex").write_text("years")
    with pytest.raises(RefusedInput) as refusal:
        _target(tmp_path / "work", "digits")
    assert refusal.value.code == "out_in_use"


def test_lineage_knows_run_and_revision(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in ("init -q", "-c user.name=a -c user.email=a@b commit -q --allow-empty -m x"):
        assert os.spawnvp(os.P_WAIT, "git", ["git", *words.split()]) == 0
    found = lineage(["mnist@1"], environ={"ATELIER_RUN_ID": "r-bbbbbbbbbb"})
    assert (found.run, found.git_dirty, found.datasets) == ("r-bbbbbbbbbb", False, ["mnist@1"])
    assert len(found.git_revision) == 40


def test_no_git_is_no_revision(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert lineage(environ={}).git_revision is None


def test_the_environment_is_a_sorted_lock():
    lock = environment_lock()
    assert any(line.startswith("pydantic==") for line in lock.packages)
    assert lock.packages == sorted(lock.packages, key=str.lower)


class Uploads:
    """A client that keeps what it is given in memory, as the service does by content."""

    def __init__(self):
        self.content, self.models = {}, []

    def put_upload(self, path):
        import hashlib

        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        self.content[digest] = path.read_bytes()
        return digest

    def publish_model(self, name, card, files):
        if missing := [file for file in files if file["sha256"] not in self.content]:
            raise NotFound("unknown_upload", str(missing))
        self.models.append((name, card, files))
        return {"version": len(self.models)}


def test_publishing_outside_a_run_uploads_every_file_and_learns_the_version(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    client = Uploads()
    package = ModelPackage.read(folder)
    assert publish(package, "digits-cnn", client=client).version == 1
    assert publish(package, client=client).version == 2
    name, sent, files = client.models[0]
    assert name == "digits-cnn"
    assert sent["formats"] == package.report["formats"]
    assert {file["path"] for file in files} == {path.relative_to(folder).as_posix() for path in package.files}


def test_publishing_inside_a_run_hands_the_package_to_the_agent(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ATELIER_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("ATELIER_RUN_ID", "r-cccccccccc")
    found = publish(ModelPackage.read(folder), "digits-cnn")
    assert (found.version, found.run) == (None, "r-cccccccccc")
    assert "published by run r-cccccccccc" in repr(found)
    assert str(folder) not in found._repr_mimebundle_()["text/html"]
    events = [json.loads(line) for line in (tmp_path / "run/spool/events.jsonl").read_text().splitlines()]
    (event,) = [event for event in events if event["type"] == "model"]
    assert event["name"] == "digits-cnn"
    handed = tmp_path / "run/spool" / event["folder"]
    assert (handed / "model.tflite").read_bytes() == b"weights"
    assert check_package(handed).name == "digits"


def test_a_package_that_was_touched_is_not_published(folder):
    package = ModelPackage.read(folder)
    (folder / "model.tflite").write_bytes(b"other")
    client = Uploads()
    with pytest.raises(RefusedInput):
        publish(package, client=client)
    assert client.content == {}
