"""Packages in the registry of a real service: published, found by number and alias, fetched, refused when touched."""

import json
from pathlib import Path

import pytest

from atelier.client import Client
from atelier.errors import NotFound, RefusedInput
from atelier.exporters import ModelPackage
from atelier.exporters.card import EnvironmentLock, Lineage, ModelCard
from atelier.exporters.package import seal
from atelier.exporters.report import BatchParity, FormatReport, Latency, Tolerance
from atelier.exporters.signature import Signature, TensorSpec
from atelier.registry import find, publish
from tests.cli_driver import terminal

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def place():
    with terminal() as made:
        assert made.json("models", "ls")["items"] == []
        yield made


@pytest.fixture
def client(place):
    with Client.find(place.environ) as made:
        yield made


def package_of(folder: Path, weights: bytes) -> ModelPackage:
    """A package as an exporter makes it, of a model that is only bytes."""
    (folder / "parts").mkdir(parents=True)
    (folder / "parts" / "weights").write_bytes(weights)
    spec = TensorSpec(name="x", dtype="float32", shape=["batch", 2])
    report = FormatReport(
        size_bytes=len(weights),
        files=["parts/weights"],
        batches=[BatchParity(batch=1, max_abs=0.0, max_rel=0.0, labels_equal=None, within=True)],
        latency_ms=Latency(source=1, exported=1, threads=1),
        latency_large_ms=None,
        tolerance=Tolerance(abs=0, rel=0),
        verdict="equal",
        seconds=0.1,
    )
    card = ModelCard(
        name="plain",
        framework="pytorch",
        frameworks={"torch": "2"},
        signature=Signature(inputs=[spec], outputs=[spec]),
        lineage=Lineage(),
        formats={"safetensors": report},
        environment=EnvironmentLock(python="3.11", packages=[]),
    )
    seal(folder, card)
    return ModelPackage.read(folder)


def test_a_package_comes_back_as_it_was_sent(client, tmp_path):
    first = publish(package_of(tmp_path / "one", b"first"), "round-trip", client=client)
    second = publish(package_of(tmp_path / "two", b"second"), "round-trip", client=client)
    assert (first.version, second.version) == (1, 2)
    client.set_alias("round-trip", "production", 1)
    newest, aliased = find("round-trip", client=client), find("round-trip", "production", client=client)
    assert (newest.version, aliased.version) == (2, 1)
    assert newest.files["parts/weights"] == len(b"second")
    assert newest.card.formats["safetensors"].verdict == "equal"
    got = aliased.fetch(tmp_path / "got")
    assert (got.folder / "parts" / "weights").read_bytes() == b"first"
    assert got.card == first.card
    assert got._repr_mimebundle_()["application/vnd.atelier.model+json"] == {"name": "round-trip", "version": 1}


def test_a_folder_that_is_in_use_is_left_alone(client, tmp_path):
    publish(package_of(tmp_path / "one", b"first"), "careful", client=client)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").write_text("years")
    with pytest.raises(RefusedInput) as refusal:
        find("careful", client=client).fetch(tmp_path / "mine")
    assert refusal.value.code == "out_in_use"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(("name", "version"), [("nobody", None), ("known", 7), ("known", "staging")])
def test_what_is_not_there_is_said(client, tmp_path, name, version):
    publish(package_of(tmp_path / "one", b"first"), "known", client=client)
    with pytest.raises(NotFound):
        find(name, version, client=client)


def test_the_command_line_publishes_a_folder_where_no_framework_is(place, tmp_path):
    package_of(tmp_path / "one", b"first")
    done = place.json("export", str(tmp_path / "one"), "--name", "by-hand")
    assert (done["name"], done["version"]) == ("by-hand", 1)
    (tmp_path / "one" / "parts" / "weights").write_bytes(b"other")
    refused = place.type("export", str(tmp_path / "one"), "--name", "by-hand", "--json")
    assert refused.code == 2
    assert "package_changed" in refused.out + refused.err
    assert len(place.json("models", "show", "by-hand")["card"]["formats"]) == 1
    assert json.loads((tmp_path / "one" / "model.json").read_text())["name"] == "plain"
