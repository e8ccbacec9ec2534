"""Layers of requirements are told apart by what they are made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from atelier.agent.requirements import _key, _names_a_file

FILES = (
    "./x.whl",
    "  ./x.whl",
    "-r more.txt",
    "-rmore.txt",
    "-c limits.txt",
    "-e .",
    ".",
    "--find-links wheels",
    "folder/package",
    "package @ file:///x/y.whl",
    "--requirement=more.txt",
    "../package",
    "-f wheels",
)
NO_FILES = (
    "",
    "# see ./docs/x.md",
    "numpy",
    "numpy>=2,<3  # as in a/b",
    "package @ https://host/a/b.whl",
    "https://host/a/b.whl",
    "git+https://host/a/b@main",
    "--index-url https://host/simple",
    "package[extra]==1.0; python_version > '3.11'",
)


@pytest.mark.parametrize("line", FILES)
def test_a_line_may_name_a_file_beside_it(line: str) -> None:
    assert _names_a_file(line)


@pytest.mark.parametrize("line", NO_FILES)
def test_most_lines_name_none(line: str) -> None:
    assert not _names_a_file(line)


def test_only_files_beside_it_bind_a_layer_to_the_code() -> None:
    image = Path("/images/x/bin/python")
    assert _key(image, "lock", "numpy\n", "a" * 64) == _key(image, "lock", "numpy\n", "b" * 64)
    assert _key(image, "lock", "./x.whl\n", "a" * 64) != _key(image, "lock", "./x.whl\n", "b" * 64)
    keys = {
        _key(image, "lock", "numpy\n", ""),
        _key(image, "lock 2", "numpy\n", ""),
        _key(image, "lock", "numpy>1\n", ""),
        _key(Path("/images/y/bin/python"), "lock", "numpy\n", ""),
    }
    assert len(keys) == 4
