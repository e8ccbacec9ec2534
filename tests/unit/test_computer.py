"""What this computer has, told by a driver that may fail at first."""

from __future__ import annotations

from pathlib import Path

import pytest

from atelier.local.computer import Gpu, GpuList, this_computer

LISTING = "GPU-1, NVIDIA H100, 81559"


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program ``nvidia-smi`` that fails until a file ``loaded`` lies beside it, and notes each call in ``calls``."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncd {tmp_path}\necho called >> calls\ntest -e loaded || exit 9\necho '{LISTING}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path


def calls(driver: Path) -> int:
    return len((driver / "calls").read_text().splitlines())


def test_a_failure_is_not_kept_for_ever(driver: Path) -> None:
    gpus = GpuList(retry_s=0.0)
    assert gpus.gpus() == ()
    (driver / "loaded").touch()
    assert gpus.gpus() == (Gpu("GPU-1", "NVIDIA H100", 81559 * 2**20),)
    assert gpus.gpus() == gpus.gpus()
    assert calls(driver) == 2, "an answer is kept"


def test_a_failing_driver_is_not_asked_at_every_turn(driver: Path) -> None:
    gpus = GpuList(retry_s=3600.0)
    assert gpus.gpus() == gpus.gpus() == ()
    assert calls(driver) == 1


def test_declared_devices_stand_for_real_ones() -> None:
    assert [gpu.uuid for gpu in this_computer({"ATELIER_TEST_GPUS": "a, b,"}).gpus] == ["a", "b"]
    assert this_computer({"ATELIER_TEST_GPUS": ""}).gpus == ()
