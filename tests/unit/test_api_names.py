"""The public names: all there, cheap to import, and not replaced by a submodule."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import atelier
from atelier.following import FINAL
from atelier.records import FINAL_STATES

FUNCTIONS = ["catalog", "current_run", "export", "models", "run", "runs", "submit"]
NAMESPACES = ["data", "keras", "torch", "widgets"]
HEAVY = ["pydantic", "httpx", "yaml", "torch", "tensorflow", "keras", "pandas", "numpy", "ipywidgets", "fastapi"]


def _python(program: str, *argv: str) -> str:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program, *argv], env=environ, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_nothing_heavy() -> None:
    loaded = json.loads(_python("import sys, json, atelier; print(json.dumps(sorted(sys.modules)))"))
    assert "atelier" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_import_takes_at_most_150_ms_of_work() -> None:
    program = "import time; t = time.process_time(); import atelier; print(time.process_time() - t)"
    assert min(float(_python(program)) for _ in range(3)) <= 0.15


def test_public_names_are_listed_and_typed_as_public() -> None:
    assert sorted(atelier.__all__) == sorted([*FUNCTIONS, *NAMESPACES])
    assert atelier.__version__
    with pytest.raises(AttributeError, match="no attribute 'submitt'"):
        atelier.submitt  # noqa: B018


COMPLETE = """
import json, sys
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("import atelier.cli, atelier.data, atelier.keras, atelier.torch, atelier.widgets")
found = {}
for name in sys.argv[1:]:
    for use_jedi in (False, True):
        shell.Completer.use_jedi = use_jedi
        text = name + "."
        with provisionalcompleter():
            after = {each.text for each in shell.Completer.completions(text, len(text))}
        found.setdefault(name, []).append(sorted(each.rpartition(".")[2] for each in after))
print(json.dumps(found))
"""


def test_completion_shows_public_names_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    modules = {"atelier": atelier, **{f"atelier.{name}": getattr(atelier, name) for name in NAMESPACES}}
    found = json.loads(_python(COMPLETE, *modules))
    for name, module in modules.items():
        assert set(dir(module)) - {"__version__"} == set(module.__all__), name
        for shown in found[name]:
            assert [each for each in shown if not each.startswith("_")] == sorted(module.__all__), name


def test_no_submodule_replaces_a_public_name() -> None:
    program = f"""
import importlib, pkgutil, sys
import atelier
left_out = []
def name_of(module): return module.name
for module in pkgutil.walk_packages(atelier.__path__, "atelier.", onerror=lambda name: left_out.append(name)):
    if module.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(module.name)
    except ImportError as problem:
        if (problem.name or "").startswith("atelier"):
            raise
        left_out.append((module.name, str(problem)))
for name in {FUNCTIONS!r}:
    assert callable(getattr(atelier, name)) and not hasattr(getattr(atelier, name), "__path__"), name
    assert type(getattr(atelier, name)).__name__ == "function", (name, getattr(atelier, name))
for name in {NAMESPACES!r}:
    assert getattr(atelier, name).__name__ == "atelier." + name
print(len(sys.modules), left_out, file=sys.stderr)
"""
    _python(program)


def test_the_words_for_final_states_are_those_of_the_records() -> None:
    assert frozenset(str(state) for state in FINAL_STATES) == FINAL
