"""What an agent sends of a file with a line that is too long: all the rest, each byte at its place."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from atelier.agent.link import Link
from atelier.agent.pieces import CHUNK_BYTES, LINE_BYTES, Pieces
from atelier.agent.place import Place
from atelier.agent.shipper import Shipper
from atelier.agent.telling import EventTaker
from atelier.naming import MOST_CODE_WARNINGS
from tests.tiny_server import Answer, Request, tiny_server

SHORT = b'{"t":1.0,"step":1,"values":{"loss":0.5}}\n'


def sent_of(data: bytes, pieces: Pieces) -> bytes:
    """What is sent of a file until nothing more may be."""
    sent = b""
    while piece := pieces.next(io.BytesIO(data), len(sent)):
        assert len(piece) <= LINE_BYTES
        sent += piece
    return sent


@pytest.mark.parametrize("length", [LINE_BYTES, LINE_BYTES + 1, LINE_BYTES + CHUNK_BYTES - 1, 3 * LINE_BYTES])
def test_a_line_that_is_too_long_keeps_nothing_else_back(length: int) -> None:
    told: list[str] = []
    pieces = Pieces(told.append)
    sent = sent_of(SHORT + b"x" * length + b"\n" + SHORT + b"x" * length + b"\n" + SHORT + b"begun", pieces)
    assert sent == SHORT + b" " * length + b"\n" + SHORT + b" " * length + b"\n" + SHORT
    assert told == [f"A line of more than {LINE_BYTES} bytes of metrics was left out."]
    assert pieces.long_lines == 2


def test_a_line_as_long_as_may_be_is_sent() -> None:
    told: list[str] = []
    data = SHORT + b"x" * (LINE_BYTES - 1) + b"\n" + SHORT
    assert sent_of(data, Pieces(told.append)) == data
    assert told == []


def test_a_line_whose_end_comes_later_is_blanked_to_its_end() -> None:
    told: list[str] = []
    pieces, data = Pieces(told.append), b"x" * (LINE_BYTES + 5)
    assert sent_of(data, pieces) == b" " * len(data)
    assert pieces.next(io.BytesIO(data + b"yy\n" + SHORT), len(data)) == b"  \n"
    assert pieces.next(io.BytesIO(data + b"yy\n" + SHORT), len(data) + 3) == SHORT
    assert pieces.long_lines == 1


def test_what_is_missing_is_told_at_the_end(tmp_path: Path) -> None:
    place, told = Place(tmp_path), list[str]()
    place.make()
    (place.spool / "metrics.jsonl").write_bytes((b"x" * LINE_BYTES + b"\n") * 2 + SHORT)
    (place.spool / "metrics.jsonl.lost").write_text("00000000000000000105")
    (place.spool / "events.jsonl.lost").write_text("nonsense")
    taken: list[bytes] = []

    def answer(request: Request) -> Answer:
        if request.path.partition("?")[0].endswith("/metrics") and request.body:
            assert int(parse_qs(urlsplit(request.path).query)["offset"][0]) == len(b"".join(taken))
            taken.append(request.body)
        return Answer(body=json.dumps({"size": len(b"".join(taken))}).encode())

    heart: Any = SimpleNamespace(warn=told.append, is_stale=SimpleNamespace(is_set=lambda: False))
    heart.is_let_go, heart.patience_s = heart.is_stale, 1.0
    with tiny_server(answer) as service:
        link = Link({"url": service.url}, "token")
        shipper = Shipper(link, place, heart)
        shipper.start()
        shipper.drain()
        link._drop()
    assert b"".join(taken) == (b" " * LINE_BYTES + b"\n") * 2 + SHORT
    assert told == [
        f"A line of more than {LINE_BYTES} bytes of metrics was left out.",
        "105 lines of values were lost: they could not be written to the run's disk.",
        "2 lines of metrics were too long, and were left out.",
    ]


def test_warnings_of_the_code_are_bounded_and_counted(tmp_path: Path) -> None:
    told: list[str] = []
    heart: Any = SimpleNamespace(warn_for_code=told.append)
    uploads: Any = None
    taker = EventTaker(Place(tmp_path), heart, uploads)
    for _ in range(2):
        for number in range(MOST_CODE_WARNINGS):
            taker.take({"type": "warning", "text": f"warning {number}"})
    for number in range(3):
        taker.take({"type": "warning", "text": f"more {number}"})
    assert told == [f"warning {number}" for number in range(MOST_CODE_WARNINGS)]
    assert taker.more_warnings == 3
