"""Nothing is removed by its age for a day after the clock jumped ahead, whoever restarts what meanwhile."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.service.timekeeping import (
    HOLD_S,
    JUMP_S,
    OFF_S,
    Leaps,
    Note,
    Reading,
    Timekeeper,
    after,
    noted,
    read_clocks,
)

DAY_S = 24 * 3600.0
BEGIN = Note(1.7e9, 5000.0, "a boot")


@dataclass
class Clocks:
    """A computer's clocks; its time of day can be set."""

    now: Reading

    def read(self) -> Reading:
        return self.now

    def go(self, seconds: float, *, set_by: float = 0.0) -> None:
        self.now = replace(self.now, day_s=self.now.day_s + seconds + set_by, boot_s=self.now.boot_s + seconds)

    def boot(self, off_s: float) -> None:
        self.now = Reading(self.now.day_s + off_s, 30.0, f"not {self.now.boot}")


@pytest.fixture
def clocks() -> Clocks:
    return Clocks(Reading(BEGIN.day_s, BEGIN.boot_s, BEGIN.boot))


def test_a_clock_that_goes_holds_nothing_back(clocks: Clocks, tmp_path: Path) -> None:
    keeper = Timekeeper(tmp_path / "clock.json", clocks.read)
    for seconds in (0.0, 1.0, 3600.0, 400 * DAY_S):
        clocks.go(seconds, set_by=JUMP_S / 2)
        assert not keeper.is_held()


@pytest.mark.parametrize("jump_s", [JUMP_S + 1, 365 * DAY_S])
def test_a_jump_holds_back_for_a_day(
    clocks: Clocks, jump_s: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = Timekeeper(tmp_path / "clock.json", clocks.read)
    assert not keeper.is_held()
    clocks.go(600, set_by=jump_s)
    with caplog.at_level(logging.INFO, logger="atelier.service"):
        held_s = 0.0
        while keeper.is_held():
            clocks.go(3600)
            held_s += 3600
    assert held_s == HOLD_S
    assert ["jumped ahead" in text for text in caplog.messages] == [True, False], "it is told once, and its end"


def test_another_service_goes_on_from_what_the_last_one_saw(clocks: Clocks, tmp_path: Path) -> None:
    path = tmp_path / "clock.json"
    assert not Timekeeper(path, clocks.read).is_held()
    clocks.go(60, set_by=30 * DAY_S)
    assert Timekeeper(path, clocks.read).is_held()
    clocks.go(HOLD_S / 2)
    assert Timekeeper(path, clocks.read).is_held()
    clocks.go(HOLD_S / 2)
    assert not Timekeeper(path, clocks.read).is_held()


def test_a_clock_that_is_set_back_ends_it(clocks: Clocks, tmp_path: Path) -> None:
    keeper = Timekeeper(tmp_path / "clock.json", clocks.read)
    assert not keeper.is_held()
    clocks.go(60, set_by=30 * DAY_S)
    assert keeper.is_held()
    clocks.go(60, set_by=-DAY_S)
    assert keeper.is_held(), "it is still wrong"
    clocks.go(60, set_by=-29 * DAY_S)
    assert not keeper.is_held()


@pytest.mark.parametrize(("off_s", "is_held"), [(0.0, False), (2 * DAY_S, False), (OFF_S + 60, True), (-DAY_S, False)])
def test_a_computer_may_be_off_for_some_days(clocks: Clocks, off_s: float, is_held: bool, tmp_path: Path) -> None:
    keeper = Timekeeper(tmp_path / "clock.json", clocks.read)
    assert not keeper.is_held()
    clocks.boot(off_s)
    assert Timekeeper(tmp_path / "clock.json", clocks.read).is_held() == is_held


def test_a_boot_lets_the_wait_go_on(clocks: Clocks, tmp_path: Path) -> None:
    keeper = Timekeeper(tmp_path / "clock.json", clocks.read)
    assert not keeper.is_held()
    clocks.go(60, set_by=30 * DAY_S)
    assert keeper.is_held()
    clocks.boot(3600)
    again = Timekeeper(tmp_path / "clock.json", clocks.read)
    assert again.is_held()
    clocks.go(HOLD_S - 60)
    assert again.is_held()
    clocks.go(61)
    assert not again.is_held()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"day_s": "x", "boot_s": 1, "boot": "b", "hold_s": 0, "ahead_s": 0}']
)
def test_a_damaged_note_is_none(clocks: Clocks, text: str, tmp_path: Path) -> None:
    (tmp_path / "clock.json").write_text(text)
    assert noted(tmp_path / "clock.json") is None
    assert not Timekeeper(tmp_path / "clock.json", clocks.read).is_held()
    assert noted(tmp_path / "clock.json") is not None


def test_a_disk_that_takes_no_note_is_told_and_borne(
    clocks: Clocks, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = Timekeeper(tmp_path / "nowhere" / "clock.json", clocks.read)
    assert not keeper.is_held()
    assert "could not be noted" in caplog.text
    clocks.go(60, set_by=DAY_S)
    assert keeper.is_held()


def test_this_computer_has_such_clocks() -> None:
    one, other = read_clocks(), read_clocks()
    assert one.boot == other.boot
    assert one.boot_s <= other.boot_s
    assert one.day_s > 1.7e9


@given(
    st.floats(0, HOLD_S),
    st.floats(0, 1e9),
    st.floats(0, 1e7),
    st.floats(-1e9, 1e9),
    st.sampled_from(["a boot", "other"]),
)
def test_a_wait_is_never_longer_than_a_day(hold_s: float, ahead_s: float, go_s: float, set_s: float, boot: str) -> None:
    before = replace(BEGIN, hold_s=hold_s, ahead_s=ahead_s if hold_s else 0.0)
    then = after(before, Reading(before.day_s + go_s + set_s, before.boot_s + go_s, boot))
    assert 0 <= then.hold_s <= HOLD_S
    assert (then.hold_s > 0) >= (boot == before.boot and set_s > JUMP_S + 1)


def test_a_clock_that_is_set_is_told_once_with_by_how_much(clocks: Clocks) -> None:
    leaps = Leaps(clocks.read)
    told = []
    for passed_s, set_by in ((1.0, 0.0), (1.0, 3600.0), (400 * DAY_S, 0.5), (1.0, -3600.0), (1.0, 0.0)):
        clocks.go(passed_s, set_by=set_by)
        told.append(round(leaps.leap_s()))
    assert told == [0, 3600, 0, -3600, 0]
