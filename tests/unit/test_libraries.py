"""What is said where an optional library is missing: one code, the use, the line that installs it."""

from __future__ import annotations

import json
import sys
import warnings

import pytest

from atelier.data.access import Preview
from atelier.errors import Unavailable
from atelier.libraries import library, quiet


def test_a_library_is_the_module() -> None:
    assert library("json", extra="json") is json


def test_a_missing_library_is_named_with_its_use_and_the_line_that_installs_it() -> None:
    with pytest.raises(Unavailable) as refused:
        library("no_such_library.part", extra="no-such", purpose="A preview of clouds")
    problem = refused.value
    assert problem.code == "library_missing"
    assert problem.message.startswith("A preview of clouds needs the library 'no_such_library', which can't be")
    assert problem.hint == "Install it with: pip install no-such"


def test_data_says_it_as_exporters_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(Unavailable) as refused:
        Preview({"rows": [], "columns": []}).to_pandas()
    assert (refused.value.code, refused.value.hint) == ("library_missing", "Install it with: pip install pandas")


def test_quiet_keeps_chatter_and_lets_errors_through(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="said"), quiet("json"):
        print("chatter")
        warnings.warn("chatter", stacklevel=1)
        raise ValueError("said")
    assert capsys.readouterr() == ("", "")
