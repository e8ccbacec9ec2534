"""The pauses of an agent whose service is away, or fails."""

from __future__ import annotations

import threading

import pytest

from atelier.agent.retrying import AWAY, AWAY_PAUSE_S, FIRST_PAUSE_S, LONGEST_PAUSE_S, Pauses, until_answered
from atelier.errors import Unreachable

AWAY_NOW = Unreachable(AWAY, "The run service does not answer.")
FAILING = Unreachable("service_failing", "The run service failed (status 507): the disk is full.")


def test_a_failing_service_is_asked_less_and_less_often() -> None:
    pauses = Pauses()
    told = [pauses.next_s(FAILING) for _ in range(6)]
    assert told == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S, *[LONGEST_PAUSE_S] * 3]
    assert pauses.waited_s == sum(told)


def test_one_that_is_away_is_asked_as_often_after_the_hundredth_time() -> None:
    """A service that dies again and again would else find agents that wait for their longest pause to end."""
    pauses = Pauses()
    assert {pauses.next_s(AWAY_NOW) for _ in range(100)} == {AWAY_PAUSE_S}
    assert pauses.waited_s == pytest.approx(100 * AWAY_PAUSE_S)
    assert pauses.next_s(FAILING) == FIRST_PAUSE_S


def test_an_answer_ends_the_waiting() -> None:
    problems = [AWAY_NOW, AWAY_NOW]

    def call() -> str:
        if problems:
            raise problems.pop()
        return "taken"

    assert until_answered(call, threading.Event().is_set) == "taken"
