"""How long a work has run is counted by a clock that nobody can set, and known to the agent that takes over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from atelier.agent.worktime import WorkTime
from tests.cli_driver import wait_for


def test_it_counts_from_the_begin_to_the_end_of_the_work(tmp_path: Path) -> None:
    now_s = 1000.0
    work = WorkTime(tmp_path / "note", lambda: now_s)
    assert work.seconds is None
    work.begin()
    now_s += 30
    assert work.seconds == 30
    work.end()
    now_s += 30
    work.end()
    assert work.seconds == 30


def test_one_that_never_began_has_no_time(tmp_path: Path) -> None:
    work = WorkTime(tmp_path / "note")
    work.end()
    assert work.seconds is None
    assert not (tmp_path / "note").exists()


def test_who_takes_over_knows_what_was_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note, now_s = tmp_path / "note", 0.0
    monkeypatch.setattr("atelier.agent.worktime.NOTE_S", 0.01)
    work = WorkTime(note, lambda: now_s)
    work.begin()
    try:
        now_s = 12.5
        wait_for(lambda: WorkTime(note).seconds == 12.5, "the time to be noted")
        now_s = 7200.0
        wait_for(lambda: WorkTime(note).seconds == 7200.0, "the time to be noted anew")
    finally:
        work.end()


@pytest.mark.parametrize("text", ["", "12.5", "x" * 20, "-0000000000000001.5", f"{'9' * 19}\N{SUPERSCRIPT TWO}"])
def test_what_is_no_note_says_nothing(text: str, tmp_path: Path) -> None:
    note = tmp_path / "note"
    note.write_text(text)
    assert WorkTime(note).seconds is None


def test_a_pipe_or_a_folder_in_its_place_says_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "note")
    for name in ("pipe", "folder", "link"):
        assert WorkTime(tmp_path / name).seconds is None
