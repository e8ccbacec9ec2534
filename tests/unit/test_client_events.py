"""Server-sent events come out the same however the bytes are cut."""

from __future__ import annotations

import itertools
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from atelier.client import Event
from atelier.client.events import parse_events
from tests.tiny_server import Answer, Request, talk

STREAM = (
    ": hello\n\n"
    'id: 7\nevent: run\ndata: {"name": "a\u2028b\x85c"}\n\n'
    'event: log\r\ndata: {"size":\r\ndata:  5}\r\n\r\n'
    "data: 1\n\n"
    "event: nothing\n\n"
    "id: 8\nevent: metrics\ndata: null\n\n"
    "event: cut\ndata: 1"
).encode()
EVENTS = [
    Event("idle", {}, None),
    Event("run", {"name": "a\u2028b\x85c"}, "7"),
    Event("log", {"size": 5}, "7"),
    Event("message", 1, "7"),
    Event("metrics", None, "8"),
]


def test_events_of_a_stream() -> None:
    assert list(parse_events([STREAM])) == EVENTS


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, len(STREAM)), max_size=10))
def test_cuts_change_nothing(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    chunks = [STREAM[start:end] for start, end in itertools.pairwise(places)]
    assert list(parse_events(chunks)) == EVENTS


def test_a_cut_connection_goes_on_after_the_last_id() -> None:
    def answer(request: Request) -> Answer:
        number = int(request.headers.get("last-event-id", "0")) + 1
        return Answer(body=f"id: {number}\nevent: run\ndata: {json.dumps({'n': number})}\n\n".encode())

    with talk(answer) as (client, _):
        stream = client.events("r-aaaaaaaaaa")
        seen = [next(stream) for _ in range(6)]
        stream.close()
    assert [event.data for event in seen if event.type == "run"] == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert [event.type for event in seen] == ["open", "run"] * 3


def test_a_service_that_lost_count_makes_the_client_look_again() -> None:
    with talk(lambda _: Answer(body=b"event: resync\ndata: {}\n\n")) as (client, _):
        stream = client.events()
        assert [next(stream).type for _ in range(2)] == ["open", "open"]
        stream.close()
