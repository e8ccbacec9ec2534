"""Metrics as a TensorBoard event file: what is strange is passed over, what is long is thinned."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from atelier.agent.tensorboard import main

STRANGE = [
    b"",
    b"{",
    b"\xff\xfe",
    b'{"t": 1, "step": 1.5, "values": {"loss": 1}}',
    b'{"t": 1, "step": true, "values": {"loss": 1}}',
    b'{"t": 1, "step": "one", "values": {"loss": 1}}',
    b'{"t": 1, "step": 99999999999999999999, "values": {"loss": 1}}',
    b'{"t": 1, "step": 1, "values": {"loss": "much"}}',
    b'{"t": 1, "step": 1, "values": {"loss": null}}',
    b'{"t": 1, "step": 1, "values": {"loss": [1]}}',
    b'{"t": 1, "step": 1, "values": 3}',
    b'{"t": "x", "step": 1, "values": {"loss": 1}}',
    b'{"t": 1, "step": 1, "values": {"loss": ' + b"9" * 5000 + b"}}",
    b"[" * 100_000,
]


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Step and value of every point in the event file, by name."""
    (path,) = folder.iterdir()
    content, found, place = path.read_bytes(), defaultdict(list), 0
    while place < len(content):
        length = int.from_bytes(content[place : place + 8], "little")
        event = Event.FromString(content[place + 12 : place + 12 + length])
        for value in event.summary.value:
            found[value.tag].append((event.step, value.simple_value))
        place += 12 + length + 4
    return dict(found)


def line(step: int | None, **values: float | str) -> bytes:
    return json.dumps({"t": 1.7e9, "step": step, "values": values}).encode()


@pytest.mark.parametrize("strange", STRANGE, ids=lambda text: text[:48].decode(errors="replace"))
def test_a_strange_line_is_passed_over(tmp_path: Path, strange: bytes) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_bytes(b"\n".join([line(1, loss=2.0), strange, line(2, loss=1.0), b""]))
    assert main(metrics, tmp_path / "out") == 2
    assert curves(tmp_path / "out") == {"loss": [(1, 2.0), (2, 1.0)]}


def test_long_metrics_are_thinned_and_rare_ones_stay_whole(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    lines = []
    for step in range(6000):
        lines.append(line(step, **{f"part{step % 2}": float(step)}))
        if step % 300 == 0:
            lines.append(line(step, val_loss=0.5))
    metrics.write_bytes(b"\n".join([*lines, b""]))

    count = main(metrics, tmp_path / "out", most_points=1000)

    found = curves(tmp_path / "out")
    assert 500 <= count <= 1020
    assert [step for step, _ in found["val_loss"]] == list(range(0, 6000, 300))
    for name in ("part0", "part1"):
        steps = [step for step, _ in found[name]]
        assert len(steps) > 200
        assert max(b - a for a, b in pairwise(steps)) <= 60


def test_short_metrics_are_whole(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_bytes(b"\n".join([*(line(None, loss=0.5, acc="nan") for _ in range(50)), b""]))
    assert main(metrics, tmp_path / "out", most_points=100) == 100
