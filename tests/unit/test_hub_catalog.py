"""What one machine offers when ``atelier.yaml`` says nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from atelier.local.catalog import availability, derived_machines, effective_catalog, installed_images, lock_of
from atelier.local.computer import Computer, Gpu, this_computer
from atelier.settings import Catalog, Image, Machine, Settings

GIB = 2**30


def _note(home: Path, name: str, **fields: str) -> None:
    (home / "envs").mkdir(exist_ok=True)
    (home / "envs" / f"{name}.json").write_text(json.dumps({"name": name, **fields}))


def test_images_are_those_that_were_built(tmp_path: Path) -> None:
    _note(
        tmp_path, "pytorch", title="PyTorch", framework="torch", version="2.9", python=sys.executable, lock_sha256="ab"
    )
    _note(tmp_path, "platform", python=sys.executable)
    _note(tmp_path, "Bad Name!", framework="torch", python=sys.executable)
    (tmp_path / "envs" / "torn.json").write_text('{"name": "to')
    (tmp_path / "envs" / "list.json").write_text("[]")
    images = installed_images(tmp_path)

    assert [image.name for image in images] == ["pytorch"]
    assert lock_of(images[0], tmp_path) == "ab"
    assert lock_of(Image(name="pytorch", python="/another/python"), tmp_path) == ""


@pytest.mark.parametrize(
    ("computer", "names"),
    [
        (Computer(1, 2 * GIB), ["cpu-small", "gpu-1"]),
        (Computer(2, 24 * GIB), ["cpu-small", "cpu-large", "gpu-1"]),
        (
            Computer(64, 512 * GIB, tuple(Gpu(f"GPU-{i}", "H100", 80 * GIB) for i in range(4))),
            ["cpu-small", "cpu-large", "gpu-1", "gpu-4"],
        ),
    ],
)
def test_machines_follow_the_computer(computer: Computer, names: list[str]) -> None:
    machines = derived_machines(computer)

    assert [machine.name for machine in machines] == names
    assert all(machine.cpu <= computer.cpu_count and machine.memory <= computer.memory_bytes for machine in machines)
    why = {machine.name: availability(machine, computer) for machine in machines}
    assert why["cpu-small"] is None
    assert why["gpu-1"] == (None if computer.gpus else "No NVIDIA GPU was found on this computer.")


def test_small_is_two_cores_and_four_gib() -> None:
    small = derived_machines(Computer(8, 32 * GIB))[0]

    assert (small.cpu, small.memory, small.title) == (2, 4 * GIB, "2 CPU, 4 GiB")


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (Machine(name="m", cpu=8), "It needs 8 cores, and this computer has 4."),
        (Machine(name="m", memory="16Gi"), "It needs 16 GiB of memory, and this computer has 8 GiB."),
        (Machine(name="m", accelerators={"nvidia.com/gpu": 2}), "It needs 2 × NVIDIA GPU, and this computer has 1."),
        (Machine(name="m", accelerators={"google.com/tpu": 8}), "No Google TPU was found on this computer."),
        (
            Machine(name="m", accelerators={"nvidia.com/mig-1g.10gb": 1}),
            "No NVIDIA mig-1g.10gb was found on this computer.",
        ),
        (
            Image(name="i", python="/nowhere/python"),
            "Its interpreter /nowhere/python is not there; 'make env IMAGES=i' builds it.",
        ),
        (Image(name="i", container="example/i:1"), "It has no 'python', so it can't be used without a cluster."),
    ],
)
def test_what_cannot_be_given_says_why(entry: Image | Machine, why: str) -> None:
    assert availability(entry, Computer(4, 8 * GIB, (Gpu("GPU-1", "A", GIB),))) == why


def test_test_devices_can_be_declared() -> None:
    assert [gpu.uuid for gpu in this_computer({"ATELIER_TEST_GPUS": "GPU-a, GPU-b"}).gpus] == ["GPU-a", "GPU-b"]
    assert this_computer({"ATELIER_TEST_GPUS": ""}).gpus == ()


def test_settings_win_list_by_list(tmp_path: Path) -> None:
    mine = Machine(name="mine")
    catalog = effective_catalog(Settings(catalog=Catalog(machines=(mine,))), tmp_path)

    assert catalog.machines == (mine,)
    assert catalog.images == ()
