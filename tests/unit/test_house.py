"""The house's limits, measured on the tree: sizes of files and functions, and what `import atelier` may cost."""

from __future__ import annotations

import ast
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for folder in ("extensions/atelier", "tools") for path in (ROOT / folder).rglob("*.py"))
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "core", "misc"}
PUBLIC = {"submit", "current_run", "runs", "run", "catalog", "sweep", "export", "models"}


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function with its place; a migration is one long list of tables, and is not looked at."""
    for path in SOURCES:
        if "migrations" not in path.parts:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its documentation."""
    doc = node.body[0] if ast.get_docstring(node) else None
    of_doc = (doc.end_lineno or doc.lineno) - doc.lineno + 1 if doc else 0
    return (node.end_lineno or node.lineno) - node.lineno + 1 - of_doc


def test_no_file_is_long() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: count for name, count in lines.items() if count > 400} == {}


def test_no_function_is_long_and_most_are_short() -> None:
    lengths = {name: length(node) for name, node in functions()}
    assert {name: count for name, count in lengths.items() if count > 60} == {}
    over_30 = sorted(name for name, count in lengths.items() if count > 30)
    assert len(over_30) <= len(lengths) / 10, over_30
    assert statistics.median(lengths.values()) <= 10


def test_callers_name_what_they_pass_after_a_few() -> None:
    found = {}
    for name, node in functions():
        if node.decorator_list:
            continue  # called by a framework, which names what it passes
        names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
        found[name] = names[1:] if names[:1] in (["self"], ["cls"]) else names
    assert {name: names for name, names in found.items() if len(names) > 5} == {}
    assert sum(len(names) > 3 for names in found.values()) <= len(found) / 20


def test_every_module_says_its_job_in_one_sentence_and_has_a_name_of_its_own() -> None:
    for path in SOURCES:
        assert path.stem not in BANNED_NAMES, path
        sentence = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0]
        assert 0 < len(sentence) <= 300, f"{path} opens with {sentence!r}"


def test_no_module_bears_the_name_of_a_public_function() -> None:
    modules = {path.stem for path in (ROOT / "extensions/atelier").glob("*.py")}
    modules |= {path.parent.name for path in (ROOT / "extensions/atelier").glob("*/__init__.py")}
    assert modules & PUBLIC == set()


def test_import_loads_nothing_heavy_and_is_quick() -> None:
    program = (
        "import sys, time; started = time.perf_counter(); import atelier; spent = time.perf_counter() - started\n"
        "import json; print(json.dumps([spent, sorted({name.split('.')[0] for name in sys.modules})]))"
    )
    argv = [sys.executable, "-c", program]
    results = [json.loads(subprocess.run(argv, check=True, capture_output=True, timeout=30).stdout) for _ in range(3)]
    loaded = set(results[0][1])
    assert loaded.isdisjoint({"pydantic", "httpx", "yaml", "numpy", "pandas", "torch", "tensorflow", "IPython"}), loaded
    assert min(spent_s for spent_s, _ in results) <= 0.15


def test_an_agent_is_up_without_what_is_slow_to_import() -> None:
    """It begins with every attempt and shares the machine with the work; models of records took half of its start."""
    program = "import sys, atelier.agent.attempt; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=30)
    slow = {"pydantic", "httpx", "yaml", "numpy", "sqlalchemy", "nbclient", "jupyter_client", "zmq", "asyncio"}
    assert slow.isdisjoint(done.stdout.split()), slow & set(done.stdout.split())


@pytest.mark.parametrize("word", ["TO" + "DO", "FIX" + "ME", "XX" + "X"])
def test_no_file_promises_work_for_later(word: str) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "*.py", "*.ts", "*.tsx", "*.md"], cwd=ROOT, check=True, capture_output=True
    )
    files = [ROOT / name for name in tracked.stdout.decode().split()]
    assert [str(path) for path in files if path.is_file() and word in path.read_text()] == []
