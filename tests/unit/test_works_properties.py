"""No value becomes code, no file makes reading it fail otherwise than by refusing it, and what is accepted arrives."""

from __future__ import annotations

import ast
import contextlib
import io
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from atelier.errors import RefusedInput
from atelier.records import Work, WorkKind
from atelier.works.finding import (
    Parameter,
    check_params,
    check_work,
    inspect_work,
    parameters_source,
    script_argv,
    value_from_text,
)
from tests.fuzzing import examples

Result = TypeVar("Result")

TEXTS = st.text(max_size=20) | st.sampled_from(
    ["", "\ud800", "\0", "'", '"""', "\\", "{x}", "\n# x", "__import__('os')"]
)
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)
NAMES = st.from_regex(r"[a-zA-Z_äλ][a-zA-Z0-9_ä]{0,8}", fullmatch=True)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.binary(max_size=9) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.none() | TEXTS, inner, max_size=3)
    ),
    max_leaves=6,
)


def same(left: Any, right: Any) -> bool:
    """Equal, and of the same types all through: True is not 1, and 1 is not 1.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(repr(left) == repr(right))


def unless_refused(call: Callable[[], Result], codes: str) -> Result | None:
    """What a call gives, or None where it is refused with one of these codes, in words."""
    try:
        return call()
    except RefusedInput as problem:
        refusal = problem
    assert refusal.code in codes.split(), refusal
    assert refusal.message
    return None


# -- values as source ---------------------------------------------------------------------------------------------
@given(st.dictionaries(NAMES, VALUES, max_size=5))
@examples(150)
def test_what_is_injected_is_the_values_and_nothing_else(params: dict[str, Any]) -> None:
    source = unless_refused(lambda: parameters_source(params), "not_identifier params_too_large")
    if source is None:
        return
    found: dict[str, Any] = {}
    for statement in ast.parse(source).body:
        assert isinstance(statement, ast.Assign)
        (target,) = statement.targets
        assert isinstance(target, ast.Name)
        found[target.id] = ast.literal_eval(statement.value)
    assert same(found, params)


@given(st.dictionaries(st.text(max_size=12) | st.sampled_from(["a=1;b", "ﬁ", "None", "x\n", "print"]), ANYTHING))
@examples(150)
@example({"a": float("nan")})
@example({"a": {1: 2}})
@example({"a": 2**63})
def test_what_no_json_has_and_what_is_no_name_is_refused(params: Mapping[str, Any]) -> None:
    source = unless_refused(lambda: parameters_source(params), "not_identifier not_json params_too_large")
    if source is None:
        return
    assert same(json.loads(json.dumps(params, allow_nan=False)), dict(params))
    assert [node.targets[0].id for node in ast.parse(source).body] == list(params)  # type: ignore[attr-defined]


@given(
    st.text(max_size=30) | st.text("{}[]()'\"\\,:0123456789.eE+-jnul ", max_size=30), st.sampled_from(["any", "float"])
)
@examples(300)
@example("{[]: 1}", "any")
@example("{{}}", "any")
@example("9" * 5000, "float")
@example("[" * 5000, "any")
@example("1e999", "float")
def test_whatever_is_typed_is_some_value(text: str, kind: Any) -> None:
    value = value_from_text(text, kind)
    with contextlib.suppress(RefusedInput):
        check_params(None, {"x": value})


@given(VALUES)
@examples(150)
def test_a_value_that_is_typed_as_json_is_that_value(value: Any) -> None:
    assert same(value_from_text(json.dumps(value), "any"), value)


# -- files as they come -------------------------------------------------------------------------------------------
LINES = st.sampled_from(
    [
        "x = 1",
        "y: int = 2  # steps",
        "z: 'int | None' = None",
        "a, b = 1, 2",
        "%matplotlib inline",
        "!ls \\",
        "%%bash",
        "%%time",
        "%run other.py",
        "x?",
        "if True:",
        "    pass",
        "\tpass",
        "def f(a, /, b=1, *c, d, **e): pass",
        "async def main(n: Literal[1, 'a', None] = 1): pass",
        "from . import main",
        "from .. import *",
        "from other import main as main",
        "main = other",
        "await x",
        "'''",
        "(",
        "\\",
        "\0",
        "\ud800",
        "# -*- coding: utf-16 -*-",
        "# coding: nonsense",
        "x = " + "(" * 150 + ")" * 150,
        "x = " + "-" * 3000 + "1",
        "x = " + "9" * 5000,
        "x = 1e308 * 10 - 1 // 0",
        "x = {[]: 1}",
        "x: " + "Optional[" * 60 + "int" + "]" * 60 + " = 1",
        "lambda: (yield)",
        "import argparse; p = argparse.ArgumentParser()",
        "p.add_argument('--n', type=int, default=3, help=4)",
        "p.add_argument('--n', choices=5)",
        "p.add_argument('--n', choices={})",
        "p.add_argument('--n', choices={'a': 1})",
        "p.add_argument('--m', choices='abc', nargs='+')",
        "p.add_argument('--m', action=argparse.BooleanOptionalAction)",
        "p.add_argument('--k', action=['store'], type=str.lower)",
        "p.add_argument(*names)",
        "p.add_argument('', dest=5)",
        "p.add_argument('-', '--', dest='')",
        "p.add_argument(b'--n', nargs=2.5, default={1, 2}, required=1)",
    ]
)
SOURCES = st.lists(LINES | st.text(max_size=12), max_size=8).map("\n".join)
JSON_TEXTS = st.recursive(
    st.none() | st.booleans() | st.integers() | SOURCES | st.sampled_from(["code", "python", "parameters", "R"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                "cells metadata nbformat nbformat_minor cell_type source tags kernelspec language language_info".split()
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)
CELLS = st.fixed_dictionaries(
    {
        "cell_type": st.sampled_from(["code", "code", "markdown"]),
        "source": SOURCES | st.lists(SOURCES, max_size=3),
        "metadata": st.sampled_from([{}, {"tags": ["parameters"]}, {"tags": [5, None]}, {"tags": "parameters"}]),
    }
)
NOTEBOOKS = st.fixed_dictionaries(
    {
        "cells": st.lists(CELLS, max_size=4),
        "metadata": st.just({}),
        "nbformat": st.just(4),
        "nbformat_minor": st.just(5),
    }
)
REFUSALS = "work_not_found empty_work bad_notebook not_python syntax_error unknown_work work_is_directory bad_folder"


def looked_into(content: bytes, kind: WorkKind, target: str) -> tuple[Parameter, ...] | None:
    """The parameters of a work of one file; a refusal is one of those that are told of."""

    def read(name: str) -> bytes:
        if name in {"w.ipynb", "w.py", "other.py"}:
            return content
        raise FileNotFoundError(name)

    parameters: tuple[Parameter, ...] | None = None

    def look() -> bool:
        nonlocal parameters
        parameters = inspect_work(read, Work(kind=kind, target=target))
        return True

    if not unless_refused(look, REFUSALS):
        return None
    check_work(read, Work(kind=kind, target=target), known_values(parameters))
    if kind is WorkKind.SCRIPT:
        argv = script_argv(read, Work(kind=kind, target=target), known_values(parameters))
        assert all(isinstance(text, str) for text in argv)
    return parameters


def known_values(parameters: tuple[Parameter, ...] | None) -> dict[str, Any]:
    """A value for each parameter that has a name: its default, or what fits its type."""
    fitting: dict[str, Any] = {"int": 1, "float": 0.5, "str": "a", "bool": True, "list": [1], "dict": {}, "any": 1}
    values = {}
    for one in parameters or ():
        with contextlib.suppress(RefusedInput):
            check_params(None, {one.name: one.default})
            value = one.default if one.default is not None else fitting[one.type]
            values[one.name] = one.choices[0] if one.choices else value
    return values


WAYS = [
    (WorkKind.NOTEBOOK, "w.ipynb"),
    (WorkKind.SCRIPT, "w.py"),
    (WorkKind.MODULE, "w"),
    (WorkKind.FUNCTION, "w:main"),
]


@pytest.mark.parametrize(("kind", "target"), WAYS)
@given(st.binary(max_size=60))
@examples(60)
@example(b"\xef\xbb\xbf")
@example(b"\xff\xfe{}")
@example(b"# coding: utf-7\n+")
def test_no_bytes_break_a_look(kind: WorkKind, target: str, content: bytes) -> None:
    with contextlib.suppress(RefusedInput):
        looked_into(content, kind, target)


@pytest.mark.parametrize(("kind", "target"), WAYS[1:])
@given(SOURCES)
@examples(150)
@example("p.add_argument('--n', choices=5)")
@example("p.add_argument('--n', choices='')")
@example("p.add_argument('--n', choices={'a': 1})")
def test_no_source_breaks_a_look(kind: WorkKind, target: str, source: str) -> None:
    with contextlib.suppress(RefusedInput):
        looked_into(source.encode(errors="surrogatepass"), kind, target)


@given(NOTEBOOKS | JSON_TEXTS, st.data())
@examples(200)
def test_no_notebook_breaks_a_look(notebook: Any, data: st.DataObject) -> None:
    content = bytearray(json.dumps(notebook).encode())
    for _ in range(data.draw(st.integers(0, 2))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=2))
        if not content:
            return
    with contextlib.suppress(RefusedInput):
        looked_into(bytes(content), WorkKind.NOTEBOOK, "w.ipynb")


# -- what is said of a cell ---------------------------------------------------------------------------------------
@given(st.dictionaries(NAMES.filter(str.isascii), VALUES, min_size=1, max_size=4))
@examples(100)
def test_the_values_of_a_cell_are_its_defaults_and_fit(values: dict[str, Any]) -> None:
    try:
        source = parameters_source(values)
    except RefusedInput:
        return
    cell = {"cell_type": "code", "source": source, "metadata": {"tags": ["parameters"]}}
    notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    found = looked_into(json.dumps(notebook).encode(), WorkKind.NOTEBOOK, "w.ipynb")
    assert found is not None
    assert same({one.name: one.default for one in found}, values)
    check_params(found, values, notebook=True)
    with pytest.raises(RefusedInput, match="no parameter"):
        check_params(found, {"_not_there_": 1}, notebook=True)


# -- scripts ------------------------------------------------------------------------------------------------------
OPTIONS = {
    "n": ("p.add_argument('-n', '--n', type=int, default=3)", st.integers(-(10**6), 10**6)),
    "rate": ("p.add_argument('--rate', type=float)", st.floats(allow_nan=False, allow_infinity=False)),
    "label": ("p.add_argument('--label')", st.text(max_size=9).filter(lambda text: "\0" not in text)),
    "fast": ("p.add_argument('--fast', action='store_true')", st.booleans()),
    "slow": ("p.add_argument('--no-slow', dest='slow', action='store_false')", st.booleans()),
    "deep": ("p.add_argument('--deep', action=argparse.BooleanOptionalAction)", st.booleans()),
    "many": ("p.add_argument('--many', nargs='+', type=int)", st.lists(st.integers(-9, 9), min_size=1, max_size=3)),
    "tags": (
        "p.add_argument('--tag', dest='tags', action='append')",
        st.lists(st.text("ab-=", max_size=4), min_size=1),
    ),
    "names": ("p.add_argument('--names', nargs='*')", st.lists(st.text("ab-=", max_size=3), min_size=1, max_size=2)),
    "first": ("p.add_argument('first', type=int)", st.integers(-9, 9)),
    "rest": (
        "p.add_argument('rest', nargs='*')",
        st.lists(st.text("ab-=", min_size=1, max_size=4), min_size=1, max_size=3),
    ),
}


@pytest.mark.parametrize(
    ("names", "argv"),
    [
        (["a", "b"], ["--names", "a", "b", "--", "1"]),
        (["-1", "-.5"], ["--names", "-1", "-.5", "--", "1"]),
        (["-a"], ["--names=-a", "--", "1"]),
        (["a", "-b"], "bad_argument"),
        (["--"], "bad_argument"),
    ],
)
def test_several_values_end_where_the_next_argument_begins(names: list[str], argv: list[str] | str) -> None:
    """Once the first positional one was taken for another of them."""
    source = f"import argparse\np = argparse.ArgumentParser()\n{OPTIONS['names'][0]}\n{OPTIONS['first'][0]}".encode()
    work, values = Work(kind=WorkKind.SCRIPT, target="w.py"), {"names": names, "first": 1}
    if isinstance(argv, str):
        with pytest.raises(RefusedInput) as caught:
            check_work(lambda name: source, work, values)
        assert caught.value.code == argv
    else:
        assert script_argv(lambda name: source, work, values) == argv


@given(st.fixed_dictionaries({name: values for name, (_, values) in OPTIONS.items()}))
@examples(150)
def test_a_script_gets_the_values(values: dict[str, Any]) -> None:
    """As its own argparse reads them."""
    source = "\n".join(["import argparse", "p = argparse.ArgumentParser()", *(line for line, _ in OPTIONS.values())])
    work = Work(kind=WorkKind.SCRIPT, target="w.py")
    if unless_refused(lambda: check_work(lambda name: source.encode(), work, values), "bad_argument") is None:
        given = [values["label"], *values["tags"], *values["rest"], *values["names"]]
        assert "--" in given or any(text.startswith("-") for text in values["names"][:2])
        return
    argv = script_argv(lambda name: source.encode(), work, values)
    scope: dict[str, Any] = {}
    exec(compile(source, "w.py", "exec"), scope)
    with contextlib.redirect_stderr(io.StringIO()) as words:
        try:
            found = vars(scope["p"].parse_args(argv))
        except SystemExit:
            pytest.fail(f"{argv}: {words.getvalue()}")
    assert same({name: found[name] for name in values}, values), f"{argv}: {found}"
