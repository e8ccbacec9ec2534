"""Amounts as people write them become numbers, and what is no amount is refused with an example."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.errors import RefusedInput
from atelier.quantities import format_bytes, format_duration, parse_bytes, parse_cpu, parse_duration, utcnow

UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}


@pytest.mark.parametrize(
    ("text", "size"),
    [("4Gi", 4294967296), ("100M", 10**8), (512, 512), ("0", 0), (" 1.5 Ki ", 1536), ("0.5Gi", 2**29), ("1e", None)],
)
def test_amounts_of_memory(text: str | int, size: int | None) -> None:
    if size is None:
        with pytest.raises(RefusedInput):
            parse_bytes(text)
    else:
        assert parse_bytes(text) == size


@given(st.integers(0, 2**12), st.sampled_from(sorted(UNITS | BINARY)))
def test_a_whole_amount_is_exact(number: int, unit: str) -> None:
    assert parse_bytes(f"{number}{unit}") == number * (UNITS | BINARY)[unit]


@pytest.mark.parametrize(
    ("text", "cores"), [("500m", 0.5), (2, 2.0), ("0.25", 0.25), (1.5, 1.5), ("20m", 0.02), ("1500m", 1.5)]
)
def test_amounts_of_cpu(text: str | float, cores: float) -> None:
    assert parse_cpu(text) == cores


LENGTHS: dict[str | int, float] = {
    "90s": 90,
    "2h": 7200,
    "1d": 86400,
    "1w": 604800,
    "1h30m": 5400,
    "1 h 30 m": 5400,
    "1m1s": 61,
    "250ms": 0.25,
    "0.5": 0.5,
    7: 7,
}


@pytest.mark.parametrize(("text", "seconds"), LENGTHS.items())
def test_lengths_of_time(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


WRONG = [
    "",
    " ",
    "x",
    "4 bananas",
    "-1",
    "-4Gi",
    "4gi",
    "4KI",
    "1e3",
    "NaN",
    "inf",
    "Gi",
    "1,5Gi",
    "4Gi4Gi",
    "\n",
]


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_amount_is_refused_with_an_example(text: str) -> None:
    for parse in (parse_bytes, parse_cpu, parse_duration):
        with pytest.raises(RefusedInput) as caught:
            parse(text)
        assert caught.value.code == "bad_quantity"
        assert repr(text) in caught.value.message
        assert caught.value.hint


@pytest.mark.parametrize("text", ["2x", "h", "2h x", "1hh", "1h-30m", "2 weeks"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(RefusedInput):
        parse_duration(text)


def outcome(parse: Callable[[str], float], text: str) -> str:
    """The code of the refusal; empty for an amount."""
    try:
        parse(text)
    except RefusedInput as refused:
        return refused.code
    return ""


@given(st.text(max_size=12))
def test_no_text_breaks_a_parser(text: str) -> None:
    for parse in (parse_bytes, parse_cpu, parse_duration):
        assert outcome(parse, text) in {"", "bad_quantity"}


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**32, "4 GiB"), (10**15, "909 TiB"), (2**60, "1048576 TiB")],
)
def test_sizes_in_words(size: int, text: str) -> None:
    assert format_bytes(size) == text


WORDS = {
    0.42: "0.4 s",
    0: "0.0 s",
    59.4: "59 s",
    60: "1 min",
    61: "1 min 1 s",
    3600: "1 h",
    3725: "1 h 2 min",
    90061: "1 d 1 h",
}


@pytest.mark.parametrize(("seconds", "text"), WORDS.items())
def test_lengths_of_time_in_words(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.floats(0, 10**9))
def test_every_length_of_time_has_words(seconds: float) -> None:
    assert format_duration(seconds)[-1] in "sndh"


def test_now_is_aware() -> None:
    assert utcnow().utcoffset() is not None
