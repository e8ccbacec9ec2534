"""An end that the service does not take whole is told by its state and reason alone."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from atelier.agent.delivery import Delivery
from atelier.agent.link import Link
from atelier.agent.place import Place
from atelier.errors import AtelierError, Conflict, RefusedInput

END = {"state": "failed", "reason": "code_error", "message": "no", "exit_code": 1, "error": {"kind": "E"}, "ran_s": 2.0}


class Refusing(Link):
    """A service that takes no end with an error."""

    def __init__(self, refusal: AtelierError) -> None:
        self.refusal, self.told = refusal, list[Any]()

    def post(self, path: str, body: Any, /, **query: str | int) -> dict[str, Any]:
        self.told.append(body)
        if "error" in body:
            raise self.refusal
        return {}


def finish(refusal: AtelierError, folder: Path) -> list[Any]:
    link, heart = Refusing(refusal), SimpleNamespace(is_stale=threading.Event())
    others: Any = SimpleNamespace()
    beating: Any = heart
    try:
        Delivery(link, Place(folder), beating, others, work_time=others)._finish(END)
    except Conflict:
        link.told.append("raised")
    return link.told


@pytest.mark.parametrize("code", ["too_large", "bad_request"])
def test_a_refused_end_is_told_without_its_error(tmp_path: Path, code: str) -> None:
    first, second = finish(RefusedInput(code, "It is too much."), tmp_path)
    assert first == END
    assert {name: second[name] for name in ("state", "reason", "exit_code", "ran_s")} == {
        name: END[name] for name in ("state", "reason", "exit_code", "ran_s")
    }
    assert "It is too much." in second["message"]
    assert "error" not in second


def test_an_attempt_that_is_over_tells_nothing_more(tmp_path: Path) -> None:
    assert finish(Conflict("stale_attempt", "It is over."), tmp_path) == [END, "raised"]
