"""What is wrong with a request is told in plain sentences, with the value."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from atelier.records import RunSpec
from atelier.service.faults import in_words
from atelier.service.handlers.runs import MoveBody


@pytest.mark.parametrize(
    ("model", "given", "words"),
    [
        (MoveBody, {"to": {"priority": 101}}, "priority can't be 101: it should be less than or equal to 100."),
        (MoveBody, {"to": {"before": 3}}, "before can't be 3: it should be a valid string."),
        (MoveBody, {"to": {}}, "before is missing."),
        (MoveBody, {"to": "up"}, "place can't be 'up': it should be 'first' or 'last'."),
        (MoveBody, {}, "to is missing."),
        (MoveBody, {"to": "last", "by": 2}, "by is not known here."),
    ],
)
def test_a_request_that_is_refused_is_told_with_its_value(model: Any, given: object, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(model).validate_python(given)
    faults = [fault | {"loc": ("body", *fault["loc"])} for fault in caught.value.errors()]  # as FastAPI has them
    assert in_words(faults) == words


@pytest.mark.parametrize(("name", "value"), [("retries", -1), ("priority", 200), ("timeout_s", 0), ("nodes", 0)])
def test_a_number_out_of_range_is_told_with_its_range(name: str, value: int) -> None:
    work = {"kind": "script", "work": "train.py"}
    with pytest.raises(ValidationError) as caught:
        RunSpec.model_validate({**work, name: value})
    faults = [fault for fault in caught.value.errors() if name in fault["loc"]]
    told = in_words([fault | {"loc": ("body", *fault["loc"])} for fault in faults])  # type: ignore[arg-type]
    assert told.startswith(f"{name} can't be {value}: it should be ")


def test_a_long_value_is_cut() -> None:
    fault = {
        "type": "int_parsing",
        "loc": ("body", "nodes"),
        "msg": "Input should be a valid integer",
        "input": "9" * 999,
    }
    assert len(in_words([fault])) < 150
