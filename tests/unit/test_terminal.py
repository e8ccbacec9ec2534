"""What a log can't do to the terminal that shows it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.display.terminal import HarmlessText, harmless

ALPHABET = st.text(st.sampled_from("\x1b\x9b\x9d\x90\x9c\x07\x00\x7f[]P\\;:0138mHJK?! \n\r\tä"), max_size=40)
HARMLESS = re.compile(r"(?:\x1b\[[0-9;:]*m|[^\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f])*")


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("plain ä\n\ttext\r 5 %\b", "plain ä\n\ttext\r 5 %\b"),
        ("\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m"),
        ("\x9b32mgreen\x1b[m", "\x1b[32mgreen\x1b[m"),
        ("left \x1b[33myellow", "left \x1b[33myellow\x1b[0m"),
        ("\x1b[2J\x1b[1;1Htop\x1b[3A\x1b[K\x1b[?1049h", "top"),
        ("\x1b]52;c;ZWNobyBoaQ==\x07clip", "clip"),
        ("\x1b]0;title\x1b\\name \x9d0;title\x9cagain", "name again"),
        ("\x1b]0;never ended\nnext line", "\nnext line"),
        ("\x1bP+q544e\x1b\\dcs \x1b_apc\x1b\\\x1b^pm\x1b\\", "dcs "),
        ("\x1bc\x1b7\x1b(0\x0ebell\x07", "bell"),
        ("\x1b[>4;2mkeys\x1b[?m", "keys"),
        ("cut \x1b[3", "cut "),
    ],
)
def test_of_what_steers_a_terminal_only_colours_stay(written: str, shown: str) -> None:
    assert harmless(written, colours=True) == shown
    assert harmless(written, colours=False) == re.sub(r"\x1b\[[0-9;:]*m", "", shown)


@given(ALPHABET, ALPHABET, ALPHABET)
def test_pieces_are_shown_as_the_whole_is(one: str, two: str, three: str) -> None:
    text = HarmlessText(colours=True)
    shown = text.feed(one) + text.feed(two) + text.feed(three) + text.end()
    assert shown == harmless(one + two + three, colours=True)
    assert HARMLESS.fullmatch(shown)


def test_a_sequence_that_never_ends_is_not_held_for_ever() -> None:
    text = HarmlessText(colours=True)
    assert [text.feed("\x1b]" + "x" * 5000), text.feed("seen")] == ["", "seen"]
