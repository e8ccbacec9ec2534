"""The time that a work has to stop is counted from when it was told, by clocks that nobody can set."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from atelier.agent.family import Family
from atelier.agent.gpu import GpuMeter
from atelier.agent.heart import Heart
from atelier.agent.link import Link
from atelier.agent.worktime import WorkTime
from atelier.errors import Conflict
from atelier.service.backends import Key
from atelier.service.silence import Silence
from atelier.service.stops import Stops
from tests.cli_driver import wait_for

ONE, OTHER = Key("r-aaaaaaaaaa", 1), Key("r-bbbbbbbbbb", 1)


class Ordering(Link):
    """A service that wants the work to stop, within ever the same seconds."""

    def __init__(self, grace_s: float) -> None:
        super().__init__({"socket": "/nowhere"}, "token")
        self.grace_s, self.is_over = grace_s, False

    def post(self, path: str, body: Any, /, **query: str | int) -> dict[str, Any]:
        if self.is_over:
            raise Conflict("stale_attempt", "The attempt is over.")
        return {"stop": "cancel", "grace_s": self.grace_s}


@contextmanager
def beating(folder: Path, link: Ordering, *, patience_s: float) -> Iterator[tuple[Heart, list[float]]]:
    """A heart, and the seconds that it says are left, at each beat."""
    left_s: list[float] = []
    heart = Heart(
        link,
        Family("r-unittests1/1", folder),
        GpuMeter(()),
        work_time=WorkTime(folder / "work-time"),
        on_stop=lambda order, seconds: left_s.append(seconds),
    )
    heart.patience_s = patience_s
    heart.start()
    try:
        yield heart, left_s
    finally:
        link.is_over = True
        wait_for(heart.is_stale.is_set, "the heart to hear that its attempt is over")


def test_an_agent_counts_from_the_first_word_on(tmp_path: Path) -> None:
    with beating(tmp_path, Ordering(60.0), patience_s=20.0) as (heart, left_s):
        wait_for(lambda: len(left_s) > 2, "three beats")
        assert 59 < left_s[0] <= 60
        assert left_s[0] > left_s[1] > left_s[2] > 0
        assert not heart.is_let_go.is_set()


def test_less_time_counts_at_once_and_more_does_not(tmp_path: Path) -> None:
    link = Ordering(60.0)
    with beating(tmp_path, link, patience_s=20.0) as (_, left_s):
        for grace_s in (0.0, 60.0):
            link.grace_s = grace_s
            beats = len(left_s)
            wait_for(lambda seen=beats: len(left_s) > seen + 1, "two more beats")
            assert left_s[-1] <= 0


def test_who_has_waited_long_for_the_end_waits_no_more(tmp_path: Path) -> None:
    with beating(tmp_path, Ordering(0.0), patience_s=0.5) as (heart, left_s):
        wait_for(heart.is_let_go.is_set, "the patience to end")
        assert left_s[-1] < -0.5 < left_s[0]


def at(silence: Silence, now_s: float) -> None:
    silence.now_s = now_s


def test_the_service_counts_from_its_first_look_on() -> None:
    silence = Silence()
    stops = Stops(silence)
    at(silence, 1000.0)
    assert not stops.is_over(ONE, 10.0)
    at(silence, 1009.0)
    assert not stops.is_over(ONE, 10.0)
    assert not stops.is_over(OTHER, 10.0)
    at(silence, 1010.5)
    assert stops.is_over(ONE, 10.0)
    assert not stops.is_over(OTHER, 10.0)


def test_less_time_counts_from_when_it_was_ordered() -> None:
    silence = Silence()
    stops = Stops(silence)
    assert not stops.is_over(ONE, 100.0)
    at(silence, 5.0)
    assert not stops.is_over(ONE, 10.0)
    at(silence, 14.0)
    assert not stops.is_over(ONE, 10.0)
    at(silence, 15.5)
    assert stops.is_over(ONE, 10.0)


def test_another_service_lets_it_begin_anew() -> None:
    silence = Silence()
    for stops in (Stops(silence), Stops(silence)):
        assert not stops.is_over(ONE, 10.0)
        at(silence, silence.now_s + 11.0)
        assert stops.is_over(ONE, 10.0)


def test_what_lives_no_more_is_forgotten() -> None:
    silence = Silence()
    stops = Stops(silence)
    assert not stops.is_over(ONE, 10.0)
    stops.look([OTHER])
    at(silence, 11.0)
    assert not stops.is_over(ONE, 10.0)


def test_a_service_that_stood_still_takes_that_from_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    silence = Silence()
    stops = Stops(silence)
    assert not stops.is_over(ONE, 10.0)
    now_s = time.monotonic() + 3600
    monkeypatch.setattr("atelier.service.silence.time.monotonic", lambda: now_s)
    silence.look([ONE])
    assert not stops.is_over(ONE, 10.0)
