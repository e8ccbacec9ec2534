"""What goes over HTTP: every error has one status and comes back as itself, page tokens are ours or refused."""

from __future__ import annotations

import contextlib
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier import errors
from atelier.errors import (
    AtelierError,
    InternalError,
    NotAllowed,
    NotFound,
    RefusedInput,
    RunFailed,
    StillRunning,
    Unreachable,
)
from atelier.wire import STATUS, error_body, error_from, page_position, page_token, status_of

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, AtelierError)]


@pytest.mark.parametrize("kind", sorted(STATUS, key=str))
def test_an_error_comes_back_as_itself(kind: type[AtelierError]) -> None:
    error = kind("some_code", "It happened.", hint="Do this.", detail={"known": ["a"]})
    back = error_from(status_of(error), error_body(error))
    assert type(back) is kind
    assert (back.code, back.message, back.hint, back.detail) == (
        "some_code",
        "It happened.",
        "Do this.",
        {"known": ["a"]},
    )
    assert str(back) == "It happened.\nDo this."
    copy = pickle.loads(pickle.dumps(back))
    assert (type(copy), vars(copy)) == (kind, vars(back))


def test_every_kind_has_a_status_of_its_own() -> None:
    assert set(KINDS) - set(STATUS) == {AtelierError, RunFailed, StillRunning}, "only these never leave a service"
    assert len(set(STATUS.values())) == len(STATUS)
    assert all(400 <= status < 600 for status in STATUS.values())


KIND_OF = {
    400: RefusedInput,
    401: NotAllowed,
    403: NotAllowed,
    404: NotFound,
    413: RefusedInput,
    418: InternalError,
    500: InternalError,
    502: Unreachable,
    503: Unreachable,
    504: Unreachable,
}


@pytest.mark.parametrize(("status", "kind"), KIND_OF.items())
@pytest.mark.parametrize("body", [None, {}, {"error": "text"}, {"message": "a hub's own"}, {"error": {}}])
def test_an_answer_that_is_not_ours_is_an_error_too(
    status: int, kind: type[AtelierError], body: dict[str, object] | None
) -> None:
    error = error_from(status, body)
    assert type(error) is kind
    assert error.code == "http_error"


@pytest.mark.parametrize(
    ("code", "status"),
    [("unauthenticated", 401), ("bundle_too_large", 413), ("too_large", 413), ("bad_page_token", 400)],
)
def test_some_codes_have_a_status_of_their_own(code: str, status: int) -> None:
    assert status_of(RefusedInput(code, "x")) == status


@given(st.dictionaries(st.text(min_size=1, max_size=8).filter(str.isidentifier), st.text() | st.integers(), max_size=4))
def test_a_page_token_comes_back(position: dict[str, str | int]) -> None:
    token = page_token(**position)
    assert page_position(token) == position
    assert token.isascii()
    assert not set(token) & set("=+/ &?#%")


@given(st.text(max_size=40))
def test_any_other_text_is_no_page_token(text: str) -> None:
    with contextlib.suppress(RefusedInput):
        assert isinstance(page_position(text), dict)
