"""``atelier.yaml``: read with units, refused with the line and the nearest known key, and who may use what."""

from __future__ import annotations

from pathlib import Path

import pytest

from atelier.errors import NotAllowed, RefusedInput
from atelier.settings import Catalog, Image, Machine, Root, Settings, load_settings, may_use

WHOLE = """
accounts: one
catalog:
  images:
    - {name: pytorch, title: PyTorch, python: /opt/env/bin/python, groups: [research]}
    - {name: plain, python: /usr/bin/python3}
  machines:
    - {name: cpu-small, cpu: 500m, memory: 4Gi, price_per_hour: 0.04}
    - {name: gpu-1, cpu: 4, memory: 16Gi, accelerators: {nvidia.com/gpu: 1}, groups: [research]}
  roots: [{name: samples, url: "file:///data"}]
limits: {runs_per_user: 4, memory_per_user: 8Gi, bundle_size: 100Mi, preview_time: 5s}
database: sqlite:////tmp/x.sqlite
backend: {kubernetes: {namespace: runs}}
"""


def read(folder: Path, text: str) -> Settings:
    path = folder / "atelier.yaml"
    path.write_text(text)
    return load_settings(path)


def test_a_whole_file_is_read_with_its_units(tmp_path: Path) -> None:
    settings = read(tmp_path, WHOLE)
    small, gpu = settings.catalog.machines
    assert (small.cpu, small.memory, small.accelerators) == (0.5, 4 * 2**30, {})
    assert gpu.accelerators == {"nvidia.com/gpu": 1}
    limits = settings.limits
    assert (limits.runs_per_user, limits.memory_per_user, limits.bundle_size) == (4, 8 * 2**30, 100 * 2**20)
    assert limits.preview_time == 5.0
    assert limits.cpu_per_user is None
    assert settings.catalog.roots == (Root(name="samples", url="file:///data"),)


@pytest.mark.parametrize("text", ["", "\n\n", "# only words\n", "{}"])
def test_an_empty_file_is_the_defaults(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == Settings() == load_settings(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("acounts: one\n", 1, ["acounts", "did you mean 'accounts'"]),
        ("accounts: two\n", 1, ["accounts", "system"]),
        ("limits:\n  runs_per_user: 4\n  memory_per_usr: 1Gi\n", 3, ["limits.memory_per_usr", "memory_per_user"]),
        ("limits:\n  memory_per_user: 4 bananas\n", 2, ["4 bananas", "512Mi"]),
        ("limits: {runs_per_user: 0}\n", 1, ["runs_per_user", "1"]),
        ("catalog:\n  machines:\n    - {name: a}\n    - {name: b, cpus: 2}\n", 4, ["machines.1.cpus", "'cpu'"]),
        ("catalog:\n  images:\n    - name: Bad Name\n", 3, ["images.0.name"]),
        ("catalog:\n  images:\n    - title: x\n", 3, ["images.0.name"]),
        ("catalog: 7\n", 1, ["catalog"]),
        ("[1, 2]\n", 1, ["atelier.yaml"]),
        ("limits: {memory_per_user: -1}\n", 1, ["memory_per_user"]),
        ("catalog:\n  machines: [{name: a, price_per_hour: -1}]\n", 2, ["price_per_hour"]),
        ("backend: slurm\n", 1, ["backend"]),
    ],
    ids=lambda value: value.strip()[:30] if isinstance(value, str) else None,
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, line: int, words: list[str]) -> None:
    with pytest.raises(RefusedInput) as caught:
        read(tmp_path, text)
    assert caught.value.code == "bad_settings"
    assert f"atelier.yaml:{line}:" in caught.value.message
    for word in words:
        assert word in caught.value.message
    assert caught.value.hint


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(RefusedInput) as caught:
        read(tmp_path, "acounts: one\nlimits:\n  runs_per_user: x\n")
    assert [f"atelier.yaml:{line}:" in caught.value.message for line in (1, 2, 3)] == [True, False, True]


@pytest.mark.parametrize("text", ["a: [1\n", "a: b: c\n", "\tx: 1\n", "a: !!python/object:os.system x\n", "&a [*a]\n"])
def test_what_is_no_plain_yaml_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(RefusedInput) as caught:
        read(tmp_path, text)
    assert caught.value.code == "bad_settings"


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "atelier.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RefusedInput):
        load_settings(path)


# -- who may use what ---------------------------------------------------------------------------------------------
CATALOG = Catalog(
    images=(Image(name="pytorch", groups=("research",)), Image(name="plain")),
    machines=(Machine(name="gpu-1", groups=("research", "staff")), Machine(name="cpu-small")),
)


def test_the_first_allowed_one_is_the_default() -> None:
    assert CATALOG.image(None, []).name == "plain"
    assert CATALOG.image(None, ["research"]).name == "pytorch"
    assert CATALOG.machine(None, ["staff"]).name == "gpu-1"
    assert may_use(CATALOG.images[1], [])


def test_what_is_not_allowed_or_not_known_is_told_apart() -> None:
    with pytest.raises(NotAllowed) as caught:
        CATALOG.image("pytorch", ["staff"])
    assert caught.value.code == "image_not_allowed"
    assert "plain" in caught.value.hint
    with pytest.raises(RefusedInput) as unknown:
        CATALOG.machine("cpu-smal", [])
    assert unknown.value.code == "unknown_machine"
    assert unknown.value.detail == {"known": ["cpu-small"], "nearest": "cpu-small"}
    assert "gpu-1" not in unknown.value.hint, "a name that the caller may not use was told"
    with pytest.raises(RefusedInput) as shipped:
        CATALOG.image("tensorflow", [])
    assert "Known: plain." in shipped.value.hint
    assert "make up IMAGES=tensorflow" in shipped.value.hint
    with pytest.raises(RefusedInput) as none:
        Catalog().image(None, [])
    assert none.value.code == "no_image"
