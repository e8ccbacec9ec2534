"""The public `atelier.data`: names and previews of home in this process, and how they look in a notebook."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import atelier
from atelier.data import Preview
from atelier.data.paths import split_root
from atelier.errors import RefusedInput


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.csv").write_text("name,n\n<b>Ann</b>,1\nBo,\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "notes.txt").write_text("<script>alert(1)</script>")
    return tmp_path


def test_list_gives_names_and_pages(home: Path) -> None:
    folder = atelier.data.list("home", limit=2)
    assert list(folder) == ["sub", "a.csv"]
    assert list(atelier.data.list("home", limit=2, page=folder.next)) == ["notes.txt"]
    assert "2 of 3 entries" in repr(folder)
    assert "a.csv" in folder._repr_html_()


def test_preview_becomes_a_data_frame(home: Path) -> None:
    frame = atelier.data.preview("home/a.csv").to_pandas()
    assert list(frame.columns) == ["name", "n"]
    assert frame["n"].tolist()[0] == 1


def test_what_a_file_says_is_shown_and_never_drawn(home: Path) -> None:
    for name in ("a.csv", "notes.txt"):
        drawn = atelier.data.preview(f"home/{name}")._repr_html_()
        assert "<script" not in drawn
        assert "<b>Ann" not in drawn
    assert "&lt;b&gt;Ann" in atelier.data.preview("home/a.csv")._repr_html_()


def test_a_text_is_no_table(home: Path) -> None:
    with pytest.raises(RefusedInput) as refused:
        atelier.data.preview("home/notes.txt").to_pandas()
    assert refused.value.code == "not_a_table"


@pytest.mark.parametrize("place", ["", "a.csv", "/etc/passwd", "datasets", "runs/", "~/a.csv", "homework/x"])
def test_a_place_begins_with_a_root(place: str) -> None:
    with pytest.raises(RefusedInput) as refused:
        atelier.data.preview(place)
    assert refused.value.code == "unknown_root"
    assert "datasets/<name>/" in refused.value.hint


def test_root_and_path_are_told_apart() -> None:
    assert split_root("home") == ("home", "")
    assert split_root("home/a/b") == ("home", "a/b")
    assert split_root("datasets/samples/x/y.csv") == ("datasets/samples", "x/y.csv")
    assert split_root("runs/r-abc") == ("runs/r-abc", "")


def test_a_picture_shows_itself() -> None:
    content = {
        "root": "home", "path": "a.png", "name": "a.png", "kind": "image", "size_bytes": 1, "facts": {}, "note": "",
        "total_rows": None, "rows": None, "text": None, "cells": None, "image": {"png_base64": "AAAA"},
    }  # fmt: skip
    assert "data:image/png;base64,AAAA" in Preview(content)._repr_html_()


def test_importing_the_namespace_loads_no_library() -> None:
    heavy = ("pyarrow", "PIL", "pandas", "numpy", "httpx")
    code = f"import sys, atelier.data; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"
