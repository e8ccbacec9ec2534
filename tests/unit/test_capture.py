"""The import closure: which local files a work leads to, and which modules must come from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atelier.bundle.capture import Closure, import_closure, imported_modules
from atelier.errors import RefusedInput
from atelier.records import Work, WorkKind


def tree(tmp_path: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)


def closure(tmp_path: Path, files: dict[str, str], target: str = "w.py", folder: str = ".") -> Closure:
    tree(tmp_path, files)
    kind = WorkKind.FUNCTION if ":" in target else WorkKind.NOTEBOOK if target.endswith("nb") else WorkKind.SCRIPT
    kind = kind if target.endswith((".py", ".ipynb")) or ":" in target else WorkKind.MODULE
    return import_closure(lambda name: (tmp_path / name).read_bytes(), Work(kind=kind, target=target, folder=folder))


@pytest.mark.parametrize(
    ("source", "files"),
    [
        ("import a", {"a.py"}),
        ("import a.b", {"a.py"}),
        ("import pkg.sub.mod as m", {"pkg/__init__.py", "pkg/sub/__init__.py", "pkg/sub/mod.py", "pkg/other.py"}),
        ("from pkg import other", {"pkg/__init__.py", "pkg/other.py"}),
        ("from pkg import name", {"pkg/__init__.py"}),
        ("from pkg import *", {"pkg/__init__.py", "pkg/starred.py"}),
        ("from pkg.sub import mod", {"pkg/__init__.py", "pkg/sub/__init__.py", "pkg/sub/mod.py", "pkg/other.py"}),
        ("import space.inner", {"space/inner.py"}),
        ("from space import inner", {"space/inner.py"}),
        ("def f():\n    from a import x", {"a.py"}),
        ("import importlib; importlib.import_module('a')", {"a.py"}),
        ("__import__('space.inner')", {"space/inner.py"}),
        ("import sys; sys.path.insert(0, 'lib')\nimport inlib", {"lib/inlib.py"}),
        ("import subprocess; subprocess.run(['python', 'tool.py'])", {"tool.py", "a.py"}),
        ("try:\n    import a\nexcept ImportError:\n    a = None", {"a.py"}),
        ("import circle", {"circle.py"}),
        ("import json", {"json.py"}),
        ("import broken", {"broken.py"}),
    ],
)
def test_local_files(tmp_path: Path, source: str, files: set[str]) -> None:
    found = closure(
        tmp_path,
        {
            "w.py": source,
            "a.py": "",
            "circle.py": "import circle, w",
            "pkg/__init__.py": "__all__ = ['starred', 'x']",
            "pkg/other.py": "",
            "pkg/starred.py": "",
            "pkg/sub/__init__.py": "",
            "pkg/sub/mod.py": "from .. import other\nfrom . import missing\nfrom ....... import far",
            "space/inner.py": "",
            "lib/inlib.py": "",
            "tool.py": "import a",
            "json.py": "",
            "broken.py": "def (",
        },
    )
    assert found.files == files | {"w.py"}
    assert not found.foreign
    assert found.unreadable == ({"broken.py"} if "broken" in source else set())


def test_foreign_modules_of_the_whole_closure(tmp_path: Path) -> None:
    source = """
import os, json.decoder, torch.nn as nn
from sklearn import datasets
from helper import x
try:
    import wandb
except ImportError:
    wandb = None
try:
    import apex
except (ValueError, ModuleNotFoundError):
    pass
try:
    import needed
finally:
    pass
if TYPE_CHECKING:
    import typed
if typing.TYPE_CHECKING:
    import typed2
else:
    import untyped
"""
    tree(tmp_path, {"w.py": source, "helper.py": "import einops"})
    work = Work(kind=WorkKind.SCRIPT, target="w.py")
    found = imported_modules(lambda name: (tmp_path / name).read_bytes(), work)
    assert found == {"torch", "sklearn", "needed", "untyped", "einops"}


def test_notebook_with_run_magic(tmp_path: Path) -> None:
    texts = ("%run -i setup.py\n!ls", "import a", "x = 'data.csv'")
    cells = [{"cell_type": "code", "source": text, "metadata": {}} for text in texts]
    content = json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4})
    found = closure(tmp_path, {"w.ipynb": content, "setup.py": "import b", "a.py": "", "b.py": ""}, "w.ipynb")
    assert found.files == {"w.ipynb", "setup.py", "a.py", "b.py"}
    assert "data.csv" in found.named


def test_function_and_module_bring_their_packages(tmp_path: Path) -> None:
    files = {
        "src/pkg/__init__.py": "from .x import y",
        "src/pkg/x.py": "",
        "src/pkg/train.py": "",
        "src/pkg/__main__.py": "",
    }
    assert closure(tmp_path, files, "pkg.train:main", "src").files == {
        "src/pkg/__init__.py",
        "src/pkg/x.py",
        "src/pkg/train.py",
    }
    assert "src/pkg/__main__.py" in closure(tmp_path, files, "pkg", "src").files


def test_imports_from_outside_the_root_are_noted(tmp_path: Path) -> None:
    found = closure(
        tmp_path, {"nb/w.py": "sys.path.append('..')\nsys.path.append('../..')\nimport a", "a.py": ""}, "nb/w.py", "nb"
    )
    assert found.files == {"nb/w.py", "a.py"}
    assert found.outside == {"../.."}


def test_syntax_error_in_the_work_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedInput) as caught:
        closure(tmp_path, {"w.py": "def ("})
    assert caught.value.code == "syntax_error"
