"""Views as MIME bundles: ids for the live view; HTML and text that say the same, escaped, in any viewer."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest

from atelier import widgets
from atelier.display.bundles import RUN_TYPE, RUNS_TYPE, run_bundle, runs_bundle
from atelier.display.evidence import facts
from atelier.display.static import sparkline
from atelier.errors import RefusedInput
from atelier.records import Attempt, AttemptState, ErrorReport, Progress, Reason, Run, RunSpec, RunState, Source, Work
from atelier.widgets.views import RunList

THEN = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
EVIL = "<img src=x onerror=alert(1)>"
ALLOWED = {"div", "b", "span", "table", "thead", "tbody", "tr", "th", "td", "code", "pre", "svg", "polyline"}


def make_run(**more: Any) -> Run:
    work = Work(kind="notebook", target="train.ipynb")
    fields: dict[str, Any] = {
        "id": "r-abcdefgh27", "owner": "ann", "project": "ann", "name": "digits", "state": RunState.RUNNING,
        "spec": RunSpec(work=work, bundle="0" * 64), "image": "pytorch", "machine": "cpu-small", "created_at": THEN,
        "started_at": THEN, "metrics": {"loss": 0.25, "acc": None}, "message": "Running.",
    }  # fmt: skip
    return Run(**{**fields, **more})


def text_of(html: str) -> str:
    """What a reader sees; fails on tags or attributes that do something."""
    seen: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag in ALLOWED, tag
            assert not [name for name, _ in attrs if name.startswith("on") or name in {"href", "src"}], attrs
            assert "url(" not in dict(attrs).get("style", "") if dict(attrs).get("style") else True

        def handle_data(self, data: str) -> None:
            seen.append(data)

    Reader().feed(html)
    return " ".join(" ".join(seen).split())


def test_a_run_is_its_id_and_its_state_at_this_moment() -> None:
    progress = Progress(done=3, total=5, left_s=42, at=THEN)
    bundle = run_bundle(make_run(progress=progress))
    assert bundle[RUN_TYPE] == {"id": "r-abcdefgh27"}
    assert bundle["text/plain"] == "run r-abcdefgh27 digits: running, 3 of 5 (60 %), 42 s left"
    seen = text_of(bundle["text/html"])
    for words in (
        "Running digits",
        "r-abcdefgh27 · pytorch · cpu-small · 2026-11-24 10:00 UTC",
        "42 s left",
        "loss 0.25",
    ):
        assert words in seen
    assert "not finite" in seen
    assert "Running. " not in seen, "the state is not said twice"
    json.dumps(bundle)


def test_a_record_and_its_json_give_the_same() -> None:
    run = make_run(ended_at=THEN, state=RunState.SUCCEEDED)
    assert run_bundle(run) == run_bundle(run.model_dump(mode="json"))


def test_time_left_is_unknown_until_it_is_known() -> None:
    bundle = run_bundle(make_run(progress=Progress(done=1, total=5, left_s=None, at=THEN)))
    assert "time left unknown" in bundle["text/plain"]
    assert "time left unknown" in bundle["text/html"]
    assert "left" not in run_bundle(make_run())["text/plain"]


def test_what_is_counted_is_said_and_after_the_end_where_it_stopped() -> None:
    progress = Progress(done=3, total=12, unit="cells", at=THEN)
    assert "3 of 12 cells (25 %), time left unknown" in text_of(run_bundle(make_run(progress=progress))["text/html"])
    ended = run_bundle(make_run(progress=progress, state=RunState.CANCELLED, ended_at=THEN))
    assert "Stopped at 3 of 12 cells" in text_of(ended["text/html"])
    assert "%" not in text_of(ended["text/html"])
    assert ", stopped at 3 of 12 cells" in ended["text/plain"]
    whole = make_run(progress=Progress(done=3, total=3, at=THEN), state=RunState.FAILED, ended_at=THEN)
    assert "3 of 3" not in run_bundle(whole)["text/plain"] + run_bundle(whole)["text/html"]


def test_a_failed_run_says_what_happened_what_to_do_and_where() -> None:
    error = ErrorReport(kind="ValueError", message="bad", traceback="Traceback\n  line 7", cell=4, line=7)
    attempt = Attempt(n=1, state=AttemptState.FAILED, error=error, exit_code=1, created_at=THEN)
    run = make_run(
        state=RunState.FAILED, attempts=[attempt], ended_at=THEN, message="ValueError: bad (cell 4)", hint="Mend it."
    )
    bundle = run_bundle(run)
    card = "ValueError: bad (cell 4) Mend it. Where cell 4 · line 7 Exit code 1 Traceback line 7"
    assert card in text_of(bundle["text/html"])
    assert bundle["text/plain"].splitlines()[1:] == [
        "ValueError: bad (cell 4) Mend it.",
        "where cell 4 · line 7, exit code 1",
    ]


def test_a_waiting_run_names_its_place_and_the_end_of_the_attempt_before() -> None:
    first = Attempt(
        n=1, state=AttemptState.LOST, reason=Reason.AGENT_LOST, message="Its agent died.", exit_code=-9,
        created_at=THEN, started_at=THEN, ended_at=THEN, last_seen_at=THEN,
    )  # fmt: skip
    second = Attempt(n=2, state=AttemptState.PREEMPTED, message="It gave way.", created_at=THEN)
    run = make_run(state=RunState.QUEUED, queue_position=3, attempts=[first, second], message="Waits for room.")
    seen = text_of(run_bundle(run)["text/html"])
    assert "Waits for room. In the queue place 3" in seen
    table = "1 Lost 2026-11-24 10:00:00 UTC 0.0 s Its agent died. 2 Preempted – – It gave way."
    assert f"Attempt State Started Took Why it ended {table}" in seen
    assert "waiting" in run_bundle(run)["text/plain"]
    once = run.model_copy(update={"attempts": [first]})
    assert "Its agent died." in text_of(run_bundle(once)["text/html"])


@pytest.mark.parametrize(
    ("attempt", "known"),
    [
        ({"exit_code": 137}, [("Exit code", "137")]),
        ({"exit_code": -9}, [("Signal", "9 (SIGKILL)")]),
        ({"exit_code": -63}, [("Signal", "63")]),
        ({"usage": {"memory_bytes": 10.0}}, []),
        ({"usage": {"memory_peak_bytes": 1.5 * 2**30}}, [("Memory", "1.5 GiB at its peak, of 2 GiB")]),
        ({"reason": "stalled", "last_seen_at": "2026-11-24T10:00:07Z"}, [("Last heard of", "2026-11-24 10:00:07 UTC")]),
        ({"reason": "code_error", "last_seen_at": "2026-11-24T10:00:07Z"}, []),
    ],
)
def test_evidence_is_said_as_far_as_it_is_known(attempt: dict[str, Any], known: list[tuple[str, str]]) -> None:
    assert facts({"state": "failed", "attempts": [attempt], "memory_bytes": 2**31}) == known


def test_a_waiting_run_says_when_it_is_tried_again_and_from_where_it_goes_on() -> None:
    run = {"state": "queued", "queue_position": 1, "priority": -5, "checkpoint_step": 0}
    until = "2026-11-24T12:03:05Z"
    assert facts({**run, "not_before": until}, THEN) == [
        ("In the queue", "next"),
        ("Priority", "-5"),
        ("Next attempt", "2026-11-24 12:03:05 UTC"),
        ("Goes on from", "checkpoint of step 0"),
    ]
    past = datetime.fromisoformat(until) + timedelta(seconds=1)
    assert "Next attempt" not in dict(facts({**run, "not_before": until}, past))
    assert facts({"state": "failed", "checkpoint_step": 0}) == [("Newest checkpoint", "step 0")]


def test_warnings_of_the_record_are_shown_once() -> None:
    run = make_run(warnings=["It opens /data.", "No room."], source=Source(warnings=["It opens /data."]))
    seen = text_of(run_bundle(run)["text/html"])
    assert (seen.count("It opens /data."), seen.count("No room.")) == (1, 1)


def test_nothing_that_a_user_writes_is_markup() -> None:
    error = ErrorReport(kind=EVIL, message=EVIL, traceback=EVIL, file=EVIL)
    attempt = Attempt(n=1, state=AttemptState.FAILED, error=error, created_at=THEN)
    run = make_run(
        name=EVIL, message=EVIL, hint=EVIL, image=EVIL, machine=EVIL, metrics={EVIL: 1.0}, attempts=[attempt],
        state=RunState.FAILED, ended_at=THEN,
    )  # fmt: skip
    for html in (run_bundle(run)["text/html"], runs_bundle([run])["text/html"]):
        assert EVIL in text_of(html)
        assert EVIL not in html


def test_curves_are_drawn_small_and_survive_what_is_not_finite() -> None:
    html = run_bundle(make_run(), curves={"loss": [[0, 1.0, 1.0], [1, None, 2.0], [2, 0.5, 3.0]]})["text/html"]
    assert 'aria-label="from 1 to 0.5"' in html
    assert sparkline([]) == sparkline([[0, 1.0, 0]]) == sparkline([[0, None, 0], [1, None, 1]]) == ""
    assert "nan" not in sparkline([[0, 2.0, 0], [1, 2.0, 1]])


def test_a_list_names_its_runs_or_all() -> None:
    run = make_run()
    assert runs_bundle([run])[RUNS_TYPE] == {"ids": None, "state": None}
    assert runs_bundle([run], ids=[run.id], state="failed")[RUNS_TYPE] == {"ids": [run.id], "state": "failed"}
    assert "digits" in runs_bundle([run])["text/plain"]
    assert "No runs yet" in text_of(runs_bundle([])["text/html"])


@pytest.mark.parametrize("wrong", ["r-short", "../x", 3, "last"])
def test_a_list_of_what_is_no_run_is_refused(wrong: Any) -> None:
    with pytest.raises(RefusedInput) as refused:
        RunList([wrong])
    assert refused.value.code == "bad_run_id"


def test_an_unknown_state_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RefusedInput) as refused:
        RunList(state="finished")
    assert (refused.value.code, "succeeded" in refused.value.hint) == ("unknown_state", True)


def test_the_names_of_the_package_are_there() -> None:
    assert widgets.RunView.__name__ == "RunView"
    assert {"DataBrowser", "ExportForm", "RunList", "RunView", "TrainForm"} <= set(dir(widgets))
    with pytest.raises(AttributeError):
        _ = widgets.NoSuchWidget
