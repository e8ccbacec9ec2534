"""An older record never replaces a newer one, whichever way it came."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from atelier.client import Client, Event
from atelier.client.transport import Transport
from atelier.following import is_older, watch
from atelier.handle import RunHandle
from atelier.records import Run, RunSpec, Source, Work

SPEC = RunSpec(work=Work(kind="script", target="train.py"), bundle="ab" * 32, image="plain", machine="tiny")


def told(epoch: int, state: str, seen: str | None = None, done: int = 0) -> dict[str, Any]:
    """A record as the service answers it."""
    fields: dict[str, Any] = {
        "id": "r-abcdefghij",
        "owner": "ann",
        "name": "train",
        "project": "ann",
        "spec": SPEC,
        "image": "plain",
    }
    fields |= {"machine": "tiny", "source": Source(), "created_at": "2026-05-04T12:00:00Z", "epoch": epoch}
    record = Run(**fields, state=state, progress={"done": done, "at": "2026-05-04T12:00:00Z"}).model_dump(mode="json")
    if seen:
        record["attempts"] = [{"n": 1, "state": "running", "created_at": seen, "last_seen_at": seen}]
    return record


class Replayed(Client):
    """Answers and events of a service, in the order in which they arrived."""

    def __init__(self, answers: list[dict[str, Any]], events: list[Event]) -> None:
        super().__init__(Transport(lambda: None))  # type: ignore[arg-type, return-value]
        self._answers, self._events = answers, events

    def run(self, run_id: str) -> dict[str, Any]:
        return self._answers.pop(0)

    def events(self, *_: Any, **__: Any) -> Iterator[Event]:
        yield from self._events

    def cancel(self, run_id: str, *, now: bool = False) -> dict[str, Any]:
        return self._answers.pop(0)


def test_moves_count_first_then_when_the_work_was_heard_of() -> None:
    half, whole = "2026-05-04T12:00:05.500000Z", "2026-05-04T12:00:05Z"
    assert is_older(told(1, "queued"), told(2, "running"))
    assert is_older(told(2, "running", half), told(3, "succeeded", whole))
    assert is_older(told(2, "running", whole), told(2, "running", half))
    assert not is_older(told(2, "running", half), told(2, "running", half))
    assert not is_older(told(2, "running", half), told(2, "running"))


def test_watching_passes_over_what_is_older() -> None:
    events = [
        Event("open", {}),
        *(Event("run", told(epoch, state)) for epoch, state in ((1, "queued"), (3, "running"))),
    ]
    client = Replayed(
        [told(2, "starting")], [*events, Event("run", told(2, "starting")), Event("run", told(4, "failed"))]
    )
    assert [record["epoch"] for record in watch(client, "r-abcdefghij")] == [2, 3, 4]


def test_a_handle_keeps_the_newest() -> None:
    client = Replayed([told(2, "running", done=1), told(5, "cancelled")], [])
    handle = RunHandle(client, told(3, "running", done=3))
    assert handle.cancel()._record.progress.done == 3  # type: ignore[union-attr]
    assert handle.cancel().state == "cancelled"
