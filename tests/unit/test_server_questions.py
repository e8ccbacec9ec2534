"""Questions of running cells: each is answered once, and by its own name only."""

from __future__ import annotations

import pytest

from atelier.errors import NotFound
from atelier.server.questions import Questions


def test_a_question_is_answered_once() -> None:
    questions, heard = Questions(), list[str]()
    first, second = questions.open(heard.append), questions.open(heard.append)
    assert first != second
    questions.answer(first, "yes")
    assert heard == ["yes"]
    for name in (first, "", "no-such"):
        with pytest.raises(NotFound, match="Nobody waits") as caught:
            questions.answer(name, "no")
        assert caught.value.code == "unknown_question"
    assert questions.close(second)
    assert not questions.close(second)
    assert heard == ["yes"]
