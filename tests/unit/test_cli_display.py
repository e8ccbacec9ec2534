"""What people read: columns that stay aligned, names that can't steer a terminal, times as one says them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from atelier.cli.output import Output
from atelier.cli.runs import show_record
from atelier.display.text import Rows, ago, clean, lasted, progress_text, run_progress_text, text_table, width
from atelier.records import Attempt, AttemptState, Run, RunSpec, RunState, Work

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
LONG = "Its supervising process died, and what it left could not be brought in."


def test_columns_are_aligned_whatever_the_names() -> None:
    rows = [["plain", "1"], ["日本語", "2"], ["🙂🙂", "3"], ["e\u0301clair", "4"]]
    lines = text_table(["name", "n"], rows).splitlines()
    places = {width(line[: line.rindex(line.split()[-1])]) for line in lines}
    assert len(places) == 1


@pytest.mark.parametrize("hostile", ["a\nb", "\x1b[2J", "a\rb", "\u202eabc", "a\u2028b", "\x00", "tab\t"])
def test_a_name_can_not_steer_a_terminal(hostile: str) -> None:
    shown = clean(hostile)
    assert shown.isprintable()
    assert "?" in shown


def test_long_cells_are_cut() -> None:
    assert width(clean("日" * 100)) <= 48
    assert clean("x" * 48) == "x" * 48
    assert clean("x" * 49) == "x" * 47 + "…"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "just now"), (1, "just now"), (5.4, "5 s ago"), (59, "59 s ago"), (61, "1 min ago"), (3599, "59 min ago"),
     (3725, "1 h ago"), (90_000, "1 d ago")],
)  # fmt: skip
def test_times_are_relative(seconds: float, text: str) -> None:
    then = NOW - timedelta(seconds=seconds)
    assert ago(then, NOW) == text
    assert ago(then.isoformat().replace("+00:00", "Z"), NOW) == text


def test_what_did_not_begin_took_nothing() -> None:
    assert ago(None) == "-"
    assert lasted({"started_at": None, "ended_at": None}) == "-"
    assert lasted({"started_at": "2026-05-04T11:59:00Z", "ended_at": "2026-05-04T12:00:05Z"}) == "1 min 5 s"
    assert lasted({"started_at": "2026-05-04T11:59:00Z", "ended_at": None}, NOW) == "1 min"


def test_what_was_lost_took_until_it_was_last_heard_of() -> None:
    """A restore or a long silence ends it much later."""
    attempt = {"state": "lost", "started_at": "2026-05-04T12:00:00Z", "ended_at": "2026-05-04T12:12:23Z"}
    attempt |= {"last_seen_at": "2026-05-04T12:00:08.250Z"}
    assert lasted(attempt) == "8.2 s"
    run = {name: attempt[name] for name in ("state", "started_at", "ended_at")}
    assert lasted(run | {"attempts": [attempt]}) == "8.2 s"
    assert lasted(run | {"attempts": []}) == "12 min 23 s"
    assert lasted(attempt | {"state": "failed"}) == "12 min 23 s"


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (None, ""),
        ({"done": 3, "total": None, "left_s": None}, "3 done"),
        ({"done": 3, "total": 5, "left_s": None}, "3 of 5 (60 %), time left unknown"),
        ({"done": 3, "total": 5, "left_s": 12.2}, "3 of 5 (60 %), 12 s left"),
        ({"done": 5, "total": 5, "left_s": None}, "5 of 5 (100 %)"),
        ({"done": 1999, "total": 2000, "left_s": 0.5}, "1999 of 2000 (99 %), 0.5 s left"),
        ({"done": 170, "total": 2000, "left_s": None}, "170 of 2000 (8 %), time left unknown"),
        ({"done": 29, "total": 100, "left_s": None}, "29 of 100 (29 %), time left unknown"),
        ({"done": 3, "total": 12, "unit": "cells", "left_s": None}, "3 of 12 cells (25 %), time left unknown"),
    ],
)
def test_time_left_is_said_only_where_it_is_known(progress: dict[str, float] | None, text: str) -> None:
    assert progress_text(progress) == text


@pytest.mark.parametrize(
    ("state", "progress", "text"),
    [
        ("failed", {"done": 3, "total": 5}, "stopped at 3 of 5"),
        ("cancelled", {"done": 4, "total": 12, "unit": "cells"}, "stopped at 4 of 12 cells"),
        ("succeeded", {"done": 3, "total": 5}, "stopped at 3 of 5"),
        ("lost", {"done": 7, "total": None}, "stopped at 7"),
        ("failed", {"done": 3, "total": 3}, ""),
        ("succeeded", {"done": 7, "total": None}, ""),
        ("failed", None, ""),
    ],
)
def test_after_the_end_progress_is_where_it_stopped(state: str, progress: dict[str, float] | None, text: str) -> None:
    run = {"state": state, "ended_at": "2026-05-04T12:00:00Z", "progress": progress}
    assert run_progress_text(run) == text
    assert run_progress_text({**run, "ended_at": None}) == progress_text(progress)


def test_rows_show_themselves_escaped() -> None:
    rows = Rows([{"n": "<b>&"}], {"name": lambda row: row["n"]}, empty="nothing")
    assert rows._repr_html_().count("&lt;b&gt;&amp;") == 1
    assert repr(rows) == "name\n<b>&"
    assert repr(Rows([], {"name": str}, empty="nothing")) == "nothing"


def test_a_run_is_shown_with_its_sentence_the_evidence_and_each_attempt(capsys: pytest.CaptureFixture[str]) -> None:
    first = Attempt(
        n=1, state=AttemptState.LOST, message=LONG, exit_code=-9, created_at=NOW, started_at=NOW,
        ended_at=NOW,
    )  # fmt: skip
    last = first.model_copy(update={"n": 2, "state": AttemptState.FAILED, "message": "It was killed."})
    run = Run(
        id="r-abcdefgh27", owner="ann", project="ann", name="digits", state=RunState.FAILED, image="pytorch",
        spec=RunSpec(work=Work(kind="script", target="train.py"), bundle="0" * 64), machine="cpu-small",
        created_at=NOW, started_at=NOW, ended_at=NOW, attempts=[first, last], message="It was killed.",
        hint="Submit again.", checkpoint_step=3, warnings=["It opens /data."],
    )  # fmt: skip
    show_record(run.model_dump(mode="json"), Output(as_json=False))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[:3] == ["r-abcdefgh27 digits failed", "It was killed.", "Submit again."]
    assert lines[-7:] == [
        "newest checkpoint step 3",
        "signal 9 (SIGKILL)",
        "",
        "attempt state started took why it ended",
        f"1 Lost 2026-05-04 12:00:00 UTC 0.0 s {LONG}",
        "2 Failed 2026-05-04 12:00:00 UTC 0.0 s It was killed.",
        "warning It opens /data.",
    ]
