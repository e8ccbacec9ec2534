"""The check of a choice, and the cards."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.errors import AtelierError, NotAllowed, RefusedInput
from atelier.hub.pages import picker
from atelier.hub.profiles import image_cards, machine_cards, options_of_form, pick
from atelier.local.computer import Computer, Gpu
from atelier.settings import Catalog, Image, Machine

HERE = Computer(cpu_count=4, memory_bytes=8 * 2**30)
CATALOG = Catalog(
    images=(
        Image(name="gone", python="/nowhere/python"),
        Image(name="pytorch", title="PyTorch", framework="torch", version="2.9", python=sys.executable),
        Image(name="staff", python=sys.executable, groups=("staff",)),
    ),
    machines=(
        Machine(name="gpu-1", accelerators={"nvidia.com/gpu": 1}),
        Machine(name="small", cpu=2, memory="4Gi", price_per_hour=0.04),
        Machine(name="big", cpu=4, memory="8Gi", title="Everything"),
    ),
)


def test_nothing_named_takes_the_first_that_can_be_had() -> None:
    assert pick(CATALOG, {}, (), HERE).names == {"image": "pytorch", "machine": "small"}


def test_groups_open_what_is_theirs() -> None:
    assert pick(CATALOG, {"image": "staff"}, ("staff",), HERE).image.name == "staff"
    with pytest.raises(NotAllowed) as problem:
        pick(CATALOG, {"image": "staff"}, (), HERE)
    assert problem.value.code == "image_not_allowed"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"image": "nope"}, "unknown_image"),
        ({"machine": "nope"}, "unknown_machine"),
        ({"image": "gone"}, "image_not_available"),
        ({"machine": "gpu-1"}, "machine_not_available"),
        ({"image": 1}, "bad_options"),
        ({"mashine": "small"}, "bad_options"),
        ([], "bad_options"),
        ("small", "bad_options"),
    ],
)
def test_a_bad_choice_has_a_code(options: object, code: str) -> None:
    with pytest.raises(RefusedInput) as problem:
        pick(CATALOG, options, (), HERE)
    assert problem.value.code == code


@given(
    st.recursive(
        st.none() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_no_json_gets_past_the_check(options: Any) -> None:
    try:
        chosen = pick(CATALOG, options, (), HERE)
    except AtelierError:
        return
    assert chosen.image in CATALOG.images
    assert chosen.machine in CATALOG.machines


def test_a_gpu_that_is_there_can_be_had() -> None:
    computer = Computer(4, 8 * 2**30, (Gpu("GPU-1", "H100", 80 * 2**30),))

    assert pick(CATALOG, {"machine": "gpu-1"}, (), computer).machine.name == "gpu-1"
    card = machine_cards(CATALOG, {}, (), computer)[0]
    assert (card.why, dict(card.facts)["Model"], dict(card.facts)["Accelerator"]) == (None, "H100", "1 × NVIDIA GPU")


def test_cards_show_price_reason_and_the_last_choice() -> None:
    cards = {card.name: card for card in machine_cards(CATALOG, {"machine": "big"}, (), HERE)}

    assert cards["small"].price == "0.04 / hour"
    assert cards["gpu-1"].why == "No NVIDIA GPU was found on this computer."
    assert [name for name, card in cards.items() if card.chosen] == ["big"]
    assert (cards["big"].subtitle, cards["small"].subtitle) == ("Everything", "")
    assert [card.name for card in image_cards(CATALOG, {}, (), HERE)] == ["gone", "pytorch"]


def test_a_last_choice_that_is_gone_is_not_chosen() -> None:
    assert [card.chosen for card in machine_cards(CATALOG, {"machine": "sold"}, (), HERE)] == [False, True, False]
    assert [card.chosen for card in machine_cards(CATALOG, {"machine": ["big"]}, (), HERE)] == [False, True, False]


def test_the_form_gives_only_our_fields() -> None:
    assert options_of_form({"image": ["pytorch"], "_xsrf": ["x"], "machine": [""]}) == {
        "image": "pytorch",
        "machine": "",
    }


def test_names_of_the_catalog_are_escaped() -> None:
    catalog = Catalog(
        images=(Image(name="x", title="<script>alert(1)</script>", python=sys.executable),), machines=CATALOG.machines
    )
    html = picker(image_cards(catalog, {}, (), HERE), machine_cards(catalog, {}, (), HERE))

    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)" in html


def test_without_an_image_nothing_can_be_started() -> None:
    html = picker([], machine_cards(CATALOG, {}, (), HERE))

    assert "No image is installed" in html
    assert '<button class="at-button" type="submit" disabled>' in html
