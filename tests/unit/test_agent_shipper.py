"""What an agent sends while its work goes on telling: what was there when it looked, and the rest the next time."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from atelier.agent.link import Link
from atelier.agent.place import Place
from atelier.agent.shipper import Shipper
from tests.tiny_server import Answer, Request, tiny_server

MOST_CALLS = 50


@pytest.mark.parametrize(("stream", "line"), [("log", "a line\n"), ("metrics", '{"step": 1}\n')])
def test_a_work_that_goes_on_telling_does_not_keep_its_agent_sending(tmp_path: Path, stream: str, line: str) -> None:
    """A line comes while each call is under way: it goes with the next look, not with a call of its own."""
    place = Place(tmp_path)
    place.make()
    told = {"log": place.log, "metrics": place.spool / "metrics.jsonl"}[stream]
    told.write_text(line * 3)
    taken: list[bytes] = []

    def answer(request: Request) -> Answer:
        offset = int(parse_qs(urlsplit(request.path).query)["offset"][0])
        assert offset == len(b"".join(taken))
        if request.body and len(taken) < MOST_CALLS:
            taken.append(request.body)
            with told.open("a") as more:
                more.write(line)
        return Answer(body=json.dumps({"size": len(b"".join(taken))}).encode())

    heart: Any = SimpleNamespace(warn=print)
    with tiny_server(answer) as service:
        link = Link({"url": service.url}, "token")
        shipper = Shipper(link, place, heart)
        look = {"log": shipper._ship_log, "metrics": shipper._ship_metrics}[stream]
        for _ in range(3):
            look()
        link._drop()
    assert [piece.decode() for piece in taken] == [line * 3, line, line]
