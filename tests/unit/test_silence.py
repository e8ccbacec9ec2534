"""Silence of agents is counted by the service's own clock, while it could hear."""

from __future__ import annotations

import pytest

from atelier.service import silence
from atelier.service.backends import Key
from atelier.service.silence import LONGEST_STEP_S, Silence

ONE, OTHER = Key("r-aaaaaaaaaa", 1), Key("r-bbbbbbbbbb", 1)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(silence.time, "monotonic", made.monotonic)
    return made


def test_silence_lasts_from_the_last_word(clock: Clock) -> None:
    heard = Silence()
    heard.look([ONE, OTHER])
    for _ in range(3):
        clock.now += 1
        heard.look([ONE, OTHER])
    heard.heard(ONE)
    clock.now += 2
    heard.look([ONE, OTHER])
    assert (heard.of(ONE), heard.of(OTHER)) == (2, 5)


def test_time_in_which_nobody_could_be_heard_does_not_count(clock: Clock) -> None:
    heard = Silence()
    heard.look([ONE])
    clock.now += 3600
    heard.look([ONE])
    assert heard.of(ONE) == LONGEST_STEP_S


def test_patience_begins_with_the_first_sight(clock: Clock) -> None:
    heard = Silence()
    clock.now += 4
    heard.look([ONE])
    assert heard.of(ONE) == 0
    heard.look([])
    clock.now += 4
    heard.look([ONE])
    assert heard.of(ONE) == 0
