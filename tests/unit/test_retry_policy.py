"""When a run is tried again, after which pause, and when enough is enough."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.errors import RefusedInput
from atelier.reasons import RETRY_CHOICES, Reason
from atelier.records import AttemptState, RunSpec, Work, WorkKind
from atelier.service.manager import check_reasons
from atelier.service.store.retries import (
    FRUITFUL_S,
    JITTER,
    LONGEST_PAUSE_S,
    MOST_FRUITLESS,
    Try,
    fruitless_in_a_row,
    pause_before_next,
)
from atelier.service.store.submits import digest_of

FAILED = Try(AttemptState.FAILED, Reason.CODE_ERROR, 5.0)
LOST = Try(AttemptState.LOST, Reason.AGENT_LOST, 5.0)
GAVE_WAY = Try(AttemptState.PREEMPTED, Reason.PREEMPTED, 1.0)
WORKED = Try(AttemptState.PREEMPTED, Reason.PREEMPTED, FRUITFUL_S)


def spec(**fields: object) -> RunSpec:
    made = {"work": Work(kind=WorkKind.SCRIPT, target="train.py"), "bundle": "0" * 64, **fields}
    return RunSpec.model_validate(made)


def pauses(tries: list[Try], **fields: object) -> list[float | None]:
    """The pause after each of these attempts."""
    return [pause_before_next("r-aaaaaaaaaa", spec(**fields), tries[: n + 1]) for n in range(len(tries))]


def test_pauses_double_up_to_the_longest() -> None:
    told = pauses([FAILED] * 14, retries=20)
    for n, pause_s in enumerate(told):
        assert pause_s is not None
        usual_s = min(LONGEST_PAUSE_S, 2.0**n)
        assert usual_s <= pause_s <= usual_s * (1 + JITTER)
    assert told[-1] != told[-2], "runs that failed together would come again together"


def test_runs_that_failed_together_come_again_apart() -> None:
    after = {pause_before_next(f"r-{letter * 10}", spec(retries=1), [FAILED]) for letter in "abcdefgh"}
    assert len(after) == 8


def test_only_failures_cost_a_retry() -> None:
    told = pauses([GAVE_WAY, FAILED, GAVE_WAY, LOST, GAVE_WAY, FAILED], retries=2)
    assert [pause_s is not None for pause_s in told] == [True, True, True, True, True, False]


@pytest.mark.parametrize("state", [AttemptState.SUCCEEDED, AttemptState.CANCELLED, AttemptState.TIMED_OUT])
def test_other_ends_are_ends(state: AttemptState) -> None:
    assert pauses([Try(state, None, 1.0)], retries=5, retry_on=["any"]) == [None]


@pytest.mark.parametrize("reason", [None, *Reason])
def test_any_is_every_reason_that_may_be_named(reason: Reason | None) -> None:
    told = pauses([Try(AttemptState.FAILED, reason, 1.0)], retries=1, retry_on=["any"])
    assert (told != [None]) is (reason is None or reason in RETRY_CHOICES)


def test_what_gives_its_place_away_at_once_pauses_longer_and_longer_and_ends() -> None:
    told = pauses([GAVE_WAY] * MOST_FRUITLESS)
    assert None not in told[:-1]
    assert told[-1] is None
    growing = [pause_s for pause_s in told[:8] if pause_s is not None]
    assert growing == sorted(growing)


@given(st.lists(st.sampled_from([GAVE_WAY, WORKED, FAILED]), min_size=1, max_size=200))
def test_what_does_something_between_may_go_on_for_ever(tries: list[Try]) -> None:
    tries[-1] = WORKED
    assert fruitless_in_a_row(tries) == 0
    assert pause_before_next("r-aaaaaaaaaa", spec(), tries) is not None


@given(st.lists(st.sampled_from([GAVE_WAY, WORKED, FAILED, LOST]), min_size=1, max_size=150), st.integers(0, 100))
def test_no_pause_is_longer_than_the_longest(tries: list[Try], retries: int) -> None:
    pause_s = pause_before_next("r-aaaaaaaaaa", spec(retries=retries), tries)
    assert pause_s is None or 0 < pause_s <= LONGEST_PAUSE_S * (1 + JITTER)


def test_an_unknown_reason_is_refused_with_the_known_ones() -> None:
    check_reasons(["any", "code_error", "import_error"])
    with pytest.raises(RefusedInput) as caught:
        check_reasons(["code_error", "out_of_memroy"])
    assert caught.value.code == "unknown_reason"
    assert "'out_of_memory'" in caught.value.hint
    for pointless in ("deadline", "waits_for_capacity", "cancelled_by_user", "preempted", ""):
        with pytest.raises(RefusedInput):
            check_reasons([pointless])


def test_a_submit_of_before_has_the_digest_it_had() -> None:
    """Its key was noted with the spec's first fields; they still tell whether two submits are of the same run."""
    plain = spec()
    assert digest_of(plain) != digest_of(spec(priority=1))
    assert digest_of(plain) != digest_of(spec(retry_on=["any"]))
    assert digest_of(plain) == "a8713b46d850ac54c3407101e0ebad26c4c52a08858af64e85001e0d8300f996"
