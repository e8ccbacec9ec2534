"""Where a submit gets its image from, and what it says of packages that only the user has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from atelier.errors import RefusedInput
from atelier.submission import Order, capture, option_of, overlay_warnings, prepare, spec_of
from atelier.works.finding import find_work


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    """An overlay that has the distribution ``Tiny.Tool`` 2.0 with the module ``tiny_tool``."""
    packages = tmp_path / "overlay/lib/python3.11/site-packages"
    note = packages / "tiny_tool-2.0.dist-info"
    note.mkdir(parents=True)
    (note / "METADATA").write_text("Metadata-Version: 2.1\nName: Tiny.Tool\nVersion: 2.0\n")
    (note / "RECORD").write_text("tiny_tool/__init__.py,,\ntiny_tool-2.0.dist-info/METADATA,,\n")
    return tmp_path / "overlay"


def warnings_of(folder: Path, overlay: Path, requirements: str | None) -> list[str]:
    (folder / "train.py").write_text("import json\nimport tiny_tool\n")
    if requirements is not None:
        (folder / "requirements.txt").write_text(requirements)
    return overlay_warnings(find_work("train.py", folder), {"ATELIER_OVERLAY": str(overlay)})


@pytest.mark.parametrize("requirements", [None, "", "numpy\n", "not-tiny-tool==1\n", "# tiny-tool\n", "tiny-tool2\n"])
def test_an_import_that_only_the_overlay_has_is_said_with_the_line_to_add(
    tmp_path: Path, overlay: Path, requirements: str | None
) -> None:
    (said,) = warnings_of(tmp_path, overlay, requirements)
    assert "'tiny_tool' is only among your own packages" in said
    assert said.endswith("requirements.txt beside the work: Tiny.Tool==2.0")


@pytest.mark.parametrize(
    "requirements", ["tiny-tool\n", "numpy\n  TINY_tool >= 1.0  # why\n", "tiny.tool[extra]==2.0\n"]
)
def test_nothing_is_said_of_what_the_requirements_name(tmp_path: Path, overlay: Path, requirements: str) -> None:
    assert warnings_of(tmp_path, overlay, requirements) == []


def test_nothing_is_said_without_an_overlay(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import tiny_tool\n")
    assert overlay_warnings(find_work("train.py", tmp_path), {}) == []


@pytest.mark.parametrize(
    ("exported", "of_server", "named", "image"),
    [
        (None, None, None, None),
        (None, None, "notebook's", "notebook's"),
        ("mine", None, "notebook's", "mine"),
        ("mine", "server's", "notebook's", "mine"),
        ("server's", "server's", "notebook's", "notebook's"),
        ("server's", "server's", None, "server's"),
        ("", None, "notebook's", "notebook's"),
    ],
)
def test_an_export_wins_over_the_notebook_and_the_notebook_over_the_server(
    exported: str | None, of_server: str | None, named: str | None, image: str | None
) -> None:
    environ = {"ATELIER_IMAGE": exported, "ATELIER_SERVER_IMAGE": of_server}
    given = {name: value for name, value in environ.items() if value is not None}
    assert option_of("image", given, {"image": named} if named else {}) == image


def in_the_notebook() -> None:
    """Stands for a function of a cell."""


in_the_notebook.__module__ = "__main__"


@pytest.mark.parametrize(
    ("work", "hint"),
    [
        (in_the_notebook, "put in_the_notebook into a file, say work.py, and submit 'work:in_the_notebook'"),
        (find_work, "submit 'atelier.works.finding:find_work'"),
        (lambda: None, "'package.module:function'"),
        (3, "'package.module:function'"),
        (None, "'package.module:function'"),
    ],
)
def test_a_work_that_is_no_name_is_refused_with_the_way_to_name_it(work: Any, hint: str) -> None:
    with pytest.raises(RefusedInput, match="given by its name") as caught:
        prepare(work, {}, Order())
    assert caught.value.code == "unknown_work"
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({}, {}),
        ({"retry_on": "killed, code_error,"}, {"retry_on": ["killed", "code_error"]}),
        ({"retry_on": ("any",), "priority": -3}, {"retry_on": ["any"], "priority": -3}),
        ({"retry_on": [3]}, {"retry_on": [3]}),
    ],
)
def test_an_option_that_an_older_service_lacks_is_sent_only_when_it_is_given(
    tmp_path: Path, given: dict[str, Any], sent: dict[str, Any]
) -> None:
    """What is no reason is sent, too: the service alone says so."""
    (tmp_path / "train.py").write_text("1")
    submission = prepare(tmp_path / "train.py", {}, Order(**given))
    spec = spec_of(submission, capture(submission), {})
    assert {name: spec[name] for name in ("retry_on", "priority") if name in spec} == sent
