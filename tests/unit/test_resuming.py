"""A checkpoint that can't be read now is read again; only one that is gone, or is something else, is skipped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from atelier.agent import place as agent_place
from atelier.agent import retrying
from atelier.agent.place import Place, fetch
from atelier.agent.resuming import Checkpoints
from atelier.errors import Unreachable
from atelier.recorder.spool import MANIFEST
from tests.tiny_server import Answer, Request, TinyServer, tiny_server

WEIGHTS = b"weights" * 1000
SHA = hashlib.sha256(WEIGHTS).hexdigest()
FILES = {"weights": WEIGHTS, MANIFEST: f"{SHA}  weights\n".encode()}
Fault = Callable[[Request], Answer | None]


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(retrying, "LONGEST_PAUSE_S", 0.02)
    monkeypatch.setattr(agent_place, "FETCH_TIMEOUT_S", 1.0)


class Told:
    """What a service tells of the checkpoints of steps 2 and 1, with other URLs each time, and what the user hears."""

    def __init__(self, url: str) -> None:
        self.url, self.asked, self.warnings = url, 0, list[str]()

    def now(self) -> list[dict[str, Any]]:
        self.asked += 1
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
        return [
            {
                "step": step,
                "files": [
                    {"path": path, "sha256": digest, "url": f"{self.url}/{step}/{path}?key={self.asked}"}
                    for path, digest in digests.items()
                ],
            }
            for step in (2, 1)
        ]

    def bring(self, folder: Path, *, patience_s: float = 20.0, is_over: Callable[[], bool] = lambda: False) -> Any:
        made = Checkpoints(self.now(), ask=self.now, is_over=is_over, warn=self.warnings.append, patience_s=patience_s)
        return made.bring(Place(folder))


@contextmanager
def storage(fault: Fault) -> Iterator[tuple[Told, TinyServer]]:
    """A storage that has both checkpoints, but for what ``fault`` answers instead."""

    def answer(request: Request) -> Answer:
        path = request.path.partition("?")[0]
        return fault(request) or Answer(body=FILES[path.rsplit("/", 1)[-1]])

    with tiny_server(answer) as server:
        yield Told(server.url), server


def of_newest(fault: Answer, *, times: int = 99, path: str = "/2/weights") -> Fault:
    """A storage that answers so, so many times, when it is asked for that file."""
    left = [fault] * times
    return lambda request: left.pop() if left and request.path.startswith(path) else None


@pytest.mark.parametrize(
    "fault",
    [Answer(500), Answer(503), Answer(403), Answer(429), Answer(body=WEIGHTS, cut=100), Answer(body=WEIGHTS, cut=0)],
    ids=["500", "503", "403", "429", "cut", "cut at once"],
)
def test_what_passes_is_waited_for(fault: Answer, tmp_path: Path) -> None:
    with storage(of_newest(fault, times=3)) as (told, _):
        assert told.bring(tmp_path).name == "step-0000000002"
        assert told.warnings == []
    assert (tmp_path / "run/resume/step-0000000002/weights").read_bytes() == WEIGHTS


def test_urls_that_are_out_of_date_are_asked_for_anew(tmp_path: Path) -> None:
    with storage(lambda request: Answer(403) if request.path.endswith("?key=1") else None) as (told, _):
        assert told.bring(tmp_path).name == "step-0000000002"
        assert told.asked == 2


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Answer(404), "weights is missing"),
        (Answer(410), "weights is missing"),
        (Answer(body=WEIGHTS[:-1]), "weights is not what was stored"),
    ],
)
def test_what_is_gone_or_something_else_is_skipped_and_named(fault: Answer, words: str, tmp_path: Path) -> None:
    with storage(of_newest(fault)) as (told, _):
        assert told.bring(tmp_path).name == "step-0000000001"
        assert told.warnings == [f"The checkpoint of step 2 is not whole and was skipped: {words}."]


def test_what_stays_unreadable_starts_nothing_older(tmp_path: Path) -> None:
    with storage(of_newest(Answer(503))) as (told, server):
        with pytest.raises(Unreachable) as caught:
            told.bring(tmp_path, patience_s=0.02)
        assert caught.value.code == "storage_failing"
        assert caught.value.message.startswith("The checkpoint of step 2 can't be read now: HTTP Error 503")
        assert not [request.path for request in server.asked if request.path.startswith("/1/")]
        assert any("It is tried again." in text for text in told.warnings)


def test_a_storage_that_is_away_starts_nothing_older(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="step 2 can't be read now"):
        Told("http://127.0.0.1:1").bring(tmp_path, patience_s=0.02)


def test_an_order_to_stop_ends_it(tmp_path: Path) -> None:
    with storage(of_newest(Answer(503))) as (told, server):
        assert told.bring(tmp_path, is_over=lambda: len(server.asked) > 2) is None
        assert told.warnings == []


def test_a_full_disk_of_its_own_is_told_as_such(tmp_path: Path) -> None:
    with storage(lambda request: None) as (told, _):
        folder = tmp_path / "run/resume/step-0000000002"
        folder.mkdir(parents=True)
        (folder / "weights").symlink_to("/dev/full")
        with pytest.raises(OSError, match="No space left"):
            told.bring(tmp_path)


def test_an_answer_that_is_cut_short_is_no_whole_file(tmp_path: Path) -> None:
    with storage(of_newest(Answer(body=WEIGHTS, cut=100))) as (told, _), pytest.raises(ConnectionError, match="early"):
        fetch(f"{told.url}/2/weights", tmp_path / "weights")
