"""Records: what they refuse, how moments and ids look, and that states, moves, reasons and words fit together."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

from atelier.quantities import utcnow
from atelier.records import (
    FINAL_STATES,
    REASON_TEXT,
    RETRYABLE,
    RUN_ID,
    RUN_MOVES,
    AttemptState,
    Progress,
    Reason,
    RunSpec,
    RunState,
    Work,
    WorkKind,
    new_run_id,
)
from tests.integration import test_runs_ends

SPEC = {"work": {"kind": "script", "target": "train.py"}, "bundle": "0" * 64}


@pytest.mark.parametrize("field", ["nodes", "retries", "priority", "timeout_s", "stall_timeout_s"])
def test_a_number_is_no_text_and_no_truth_value(field: str) -> None:
    assert RunSpec(**SPEC, **{field: 3.0}).model_dump()[field] == 3
    for wrong in (True, False, "3", [3]):
        with pytest.raises(ValidationError):
            RunSpec(**SPEC, **{field: wrong})


@pytest.mark.parametrize("moment", [0, 1.5, True, "soon"])
def test_a_moment_is_no_number(moment: object) -> None:
    assert Progress(done=1, at="2026-01-31T12:00:00Z").at == datetime(2026, 1, 31, 12, tzinfo=UTC)
    with pytest.raises(ValidationError):
        Progress(done=1, at=moment)


def test_ids_are_short_plain_and_never_the_same() -> None:
    ids = {new_run_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(RUN_ID.fullmatch(run_id) and len(run_id) == 12 for run_id in ids)


@pytest.mark.parametrize(
    "text", ["r-aaaaaaaaa", "r-aaaaaaaaaaa", "r-AAAAAAAAAA", "r-aaaaaaaaa1", "x-aaaaaaaaaa", "r-aaaaaaaaaa\n"]
)
def test_what_only_looks_like_an_id_is_none(text: str) -> None:
    assert RUN_ID.fullmatch(text) is None


# -- states -------------------------------------------------------------------------------------------------------
def test_a_state_is_its_text() -> None:
    assert RunState("running") == "running"
    assert json.dumps({"state": RunState.LOST}) == '{"state": "lost"}'


def test_every_state_can_be_reached_and_final_ones_are_never_left() -> None:
    assert set(RUN_MOVES) == set(RunState)
    reached = {RunState.CREATED}
    while more := {after for before in reached for after in RUN_MOVES[before]} - reached:
        reached |= more
    assert reached == set(RunState)
    assert (
        {state for state in RunState if not RUN_MOVES[state]}
        == FINAL_STATES
        == {state for state in RunState if state.is_final}
    )


def test_every_end_of_an_attempt_has_an_end_of_its_run() -> None:
    ends = {state.value for state in AttemptState if state.is_final}
    assert ends - {state.value for state in FINAL_STATES} == {"preempted"}


# -- reasons ------------------------------------------------------------------------------------------------------
def test_every_reason_has_a_sentence_and_an_action() -> None:
    assert set(REASON_TEXT) == set(Reason)
    for reason, (sentence, action) in REASON_TEXT.items():
        for words in (sentence, action):
            assert words[0].isupper(), reason
            assert words.endswith("."), reason
            assert len(words) <= 120, reason
            assert "  " not in words
            assert "_" not in words


def test_what_waits_for_room_advises_no_machine() -> None:
    """The smallest may be picked already, and no small run goes past a large one that waits for the same room."""
    assert "machine" not in " ".join(REASON_TEXT[Reason.WAITS_FOR_CAPACITY])


def test_what_waits_is_never_tried_again() -> None:
    assert not {reason for reason in RETRYABLE if reason.value.startswith("waits_")}
    assert Reason.CANCELLED_BY_USER not in RETRYABLE


def test_every_reason_is_caused_by_a_real_process() -> None:
    """A new reason needs a test that makes it happen; here is where each of them is."""
    in_the_table = {cause.reason for cause in test_runs_ends.CAUSES.values()}
    elsewhere = {
        Reason.QUEUE_DEADLINE: "test_runs_queue",
        Reason.WAITS_FOR_USER_LIMIT: "test_runs_queue",
        Reason.WAITS_FOR_ACCELERATOR: "test_runs_queue",
        Reason.WAITS_FOR_OWN_KERNEL: "test_runs_queue",
        Reason.WAITS_FOR_CAPACITY: "test_runs_queue",
        Reason.DISK_QUOTA: "test_runs_limits",
        Reason.CANCELLED_BY_USER: "test_runs_ends",
        Reason.PREEMPTED: "test_runs_retries",
        Reason.AGENT_LOST: "test_runs_deaths",
    }
    assert in_the_table | set(elsewhere) == set(Reason)


# -- specs --------------------------------------------------------------------------------------------------------
def test_a_spec_has_defaults() -> None:
    spec = RunSpec.model_validate(SPEC)
    assert (spec.kind, spec.nodes, spec.retries, spec.params, spec.image, spec.machine) == ("job", 1, 0, {}, None, None)
    assert spec.work == Work(kind=WorkKind.SCRIPT, target="train.py", folder=".")


@pytest.mark.parametrize(
    "change",
    [
        {"surprise": 1},
        {"bundle": "0" * 63},
        {"bundle": "G" * 64},
        {"bundle": "0" * 64 + "\n"},
        {"nodes": 0},
        {"retries": 101},
        {"timeout_s": 0},
        {"timeout_s": -1},
        {"timeout_s": float("nan")},
        {"kind": "session"},
        {"name": "x" * 201},
        {"work": {"kind": "script", "target": ""}},
        {"work": {"kind": "script", "target": "x" * 1025}},
        {"work": {"kind": "lambda", "target": "x"}},
        {"params": {"x": object()}},
        {"params": [1]},
    ],
    ids=str,
)
def test_a_wrong_spec_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RunSpec.model_validate(SPEC | change)


def test_moments_are_utc_with_z() -> None:
    there = timezone(timedelta(hours=2))
    for moment in (datetime(2026, 1, 2, 5, 4, 5, 678900, there), datetime(2026, 1, 2, 3, 4, 5, 678900)):
        progress = Progress(done=1, at=moment)
        assert progress.at == datetime(2026, 1, 2, 3, 4, 5, 678900, UTC)
        assert json.loads(progress.model_dump_json())["at"] == "2026-01-02T03:04:05.678Z"
    assert Progress.model_validate_json(Progress(done=1, at=utcnow()).model_dump_json()).at.tzinfo is UTC
