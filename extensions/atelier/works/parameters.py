"""Parameters of a work: what is known of each, the check of given values, and their way into source and arguments.

A value becomes source only through ``repr`` of checked JSON, so that no name and no value can ever become code.
"""

from __future__ import annotations

import ast
import difflib
import json
import keyword
import math
import operator
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from atelier.errors import RefusedInput

ParameterType = Literal["int", "float", "str", "bool", "list", "dict", "any"]

MAX_DEPTH = 64
MAX_INT = 2**63
MAX_PARAMS_BYTES = 100_000
"""All values of a run together: Linux takes 128 KiB as one argument of a command, and every list of runs shows them."""

_ANNOTATIONS: dict[str, ParameterType] = {
    **dict.fromkeys(("int", "Integral"), "int"),
    **dict.fromkeys(("float", "Real", "Number"), "float"),
    **dict.fromkeys(("str", "Text", "Path", "PurePath", "PathLike", "AnyStr"), "str"),
    "bool": "bool",
    **dict.fromkeys(
        ("list", "List", "tuple", "Tuple", "Sequence", "MutableSequence", "Iterable", "Collection"), "list"
    ),
    **dict.fromkeys(("dict", "Dict", "Mapping", "MutableMapping"), "dict"),
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a work.

    Parameters
    ----------
    name : str
        A Python identifier.
    type : str
        ``int``, ``float``, ``str``, ``bool``, ``list``, ``dict`` or ``any`` (not known, or not expressible).
    default : JSON value
        None also when it is not a literal.
    required : bool
        Whether a run needs a value for it.
    help : str
        The comment beside it, or argparse's help.
    choices : tuple or None
        The only values allowed.
    nullable : bool
        Whether None is a value for it.
    """

    name: str
    type: ParameterType = "any"
    default: Any = None
    required: bool = False
    help: str = ""
    choices: tuple[Any, ...] | None = None
    nullable: bool = False


@dataclass(frozen=True)
class Annotation:
    """What a type annotation says: the JSON type, whether None is allowed, and a closed list of values."""

    type: ParameterType = "any"
    nullable: bool = False
    choices: tuple[Any, ...] | None = None
    help: str = ""


def parameter_of(name: str, value: ast.expr | None, annotation: ast.expr | None, comment: str = "") -> Parameter:
    """The parameter that ``name: annotation = value  # comment`` declares; required when it has no value."""
    said = annotation_of(annotation)
    known, default = literal_of(value) if value is not None else (False, None)
    kind = said.type if annotation is not None else type_of(default) if known else "any"
    return Parameter(
        name=name,
        type=kind,
        default=default,
        required=value is None,
        help=comment or said.help,
        choices=said.choices,
        nullable=said.nullable or (value is not None and default is None),
    )


def literal_of(node: ast.expr) -> tuple[bool, Any]:
    """(whether it is a JSON literal or arithmetic of number literals, its value with tuples as lists)."""
    try:
        value = _as_lists(_folded(node))
        json.dumps(value, allow_nan=False)
    except (ValueError, TypeError, ArithmeticError, RecursionError, MemoryError, SyntaxError):
        return False, None
    return True, value


def _folded(node: ast.expr) -> Any:
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        left, right = _folded(node.left), _folded(node.right)
        if all(isinstance(side, int | float) for side in (left, right)):
            return _ARITHMETIC[type(node.op)](left, right)
    return ast.literal_eval(node)


def _as_lists(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_as_lists(item) for item in value]
    if isinstance(value, dict):
        return {key: _as_lists(item) for key, item in value.items()}
    return value


def type_of(value: Any) -> ParameterType:
    """The parameter type of a JSON value; ``any`` for None."""
    kinds: tuple[tuple[type, ParameterType], ...] = (
        (bool, "bool"),
        (int, "int"),
        (float, "float"),
        (str, "str"),
        (list, "list"),
        (dict, "dict"),
    )
    return next((name for kind, name in kinds if isinstance(value, kind)), "any")


def annotation_of(node: ast.expr | None) -> Annotation:
    """What an annotation says, read without evaluating it; ``Annotation()`` for what has no JSON counterpart."""
    if isinstance(node, ast.Constant):
        return _annotation_of_constant(node.value)
    if isinstance(node, ast.Name | ast.Attribute):
        return Annotation(_ANNOTATIONS.get(_last_name(node), "any"))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _union([node.left, node.right])
    if isinstance(node, ast.Subscript):
        return _annotation_of_subscript(node)
    return Annotation()


def _annotation_of_constant(value: object) -> Annotation:
    if value is None:
        return Annotation(nullable=True)
    if isinstance(value, str):
        try:
            return annotation_of(ast.parse(value, mode="eval").body)
        except (SyntaxError, ValueError, RecursionError):
            return Annotation()
    return Annotation()


def _annotation_of_subscript(node: ast.Subscript) -> Annotation:
    outer = _last_name(node.value)
    inner = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
    if outer == "Optional":
        return _union([*inner, ast.Constant(None)])
    if outer == "Union":
        return _union(inner)
    if outer == "Literal":
        values = tuple(literal_of(item)[1] for item in inner if literal_of(item)[0])
        kinds = {type_of(value) for value in values if value is not None}
        return Annotation(kinds.pop() if len(kinds) == 1 else "any", None in values, values or None)
    if outer in {"Annotated", "Final"} and inner:
        said = annotation_of(inner[0])
        words = [literal_of(item)[1] for item in inner[1:] if isinstance(literal_of(item)[1], str)]
        return Annotation(said.type, said.nullable, said.choices, words[0] if words else said.help)
    return Annotation(_ANNOTATIONS.get(outer, "any"))


def _union(parts: Iterable[ast.expr]) -> Annotation:
    said = [annotation_of(part) for part in parts]
    nones = [part for part in said if part.nullable and part.type == "any"]
    kinds = [part for part in said if part not in nones]
    types = {part.type for part in kinds}
    if types == {"int", "float"}:
        types = {"float"}
    choices = kinds[0].choices if len(kinds) == 1 else None
    return Annotation(types.pop() if len(types) == 1 else "any", any(part.nullable for part in said), choices)


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def check_params(
    parameters: tuple[Parameter, ...] | None, params: Mapping[str, Any], *, notebook: bool = False
) -> None:
    """Refuse values that a work can't take, before anything is queued.

    Parameters
    ----------
    parameters : tuple of Parameter or None
        As `inspect_work` gives them; None (not known) checks names and JSON only.
    params : mapping
        Name → value as the user gave them.
    notebook : bool
        The work is a notebook: with no parameters at all the code is then ``no_parameters_cell``.

    Raises
    ------
    RefusedInput
        ``not_identifier``, ``not_json``, ``params_too_large``, ``no_parameters_cell``, ``unknown_parameter`` (detail:
        known, nearest), ``wrong_type``, ``not_a_choice``, ``missing_parameter``.
    """
    for name, value in params.items():
        check_name(name)
        _check_json(name, value)
    _check_size(params)
    if parameters is None:
        return
    if notebook and params and not parameters:
        raise RefusedInput(
            "no_parameters_cell",
            f"The notebook has no cell tagged 'parameters', so it takes no {', '.join(map(repr, params))}.",
            hint="Put the values that may change into one cell and tag it 'parameters' (property inspector).",
        )
    known = {parameter.name: parameter for parameter in parameters}
    for name, value in params.items():
        if name not in known:
            raise _unknown(name, list(known))
        _check_value(known[name], value)
    _check_required(parameters, params)


def _check_size(params: Mapping[str, Any]) -> None:
    size_bytes = len(json.dumps(dict(params)))
    if size_bytes > MAX_PARAMS_BYTES:
        raise RefusedInput(
            "params_too_large",
            f"The parameters have {size_bytes} bytes as JSON, and a run takes at most {MAX_PARAMS_BYTES}.",
            hint="Put large values into a file beside the work, and give its name.",
            detail={"limit_bytes": MAX_PARAMS_BYTES},
        )


def check_name(name: object) -> None:
    """Refuse a name that is not a plain Python identifier, since it becomes source."""
    plain = isinstance(name, str) and name.isidentifier() and unicodedata.normalize("NFKC", name) == name
    if not plain or keyword.iskeyword(str(name)):
        shown = str(name).replace("-", "_")
        near = shown if shown.isidentifier() and not keyword.iskeyword(shown) else None
        raise RefusedInput(
            "not_identifier",
            f"{str(name)[:100]!r} can't be the name of a parameter.",
            hint=f"Write it {near!r}."
            if near
            else "A name has letters, digits and underscores, and is no Python keyword.",
            detail={"name": str(name)[:100]},
        )


def _check_json(name: str, value: Any) -> None:
    problem = _json_problem(value, 0)
    if problem:
        raise RefusedInput(
            "not_json",
            f"The value of {name!r} can't be sent: {problem}.",
            hint="A parameter is a number, text, True, False, None, or a list or dict of these.",
            detail={"name": name},
        )


def _json_problem(value: Any, depth: int) -> str:
    if depth > MAX_DEPTH:
        return f"it is nested deeper than {MAX_DEPTH} levels"
    if type(value) in {list, dict}:
        wrong_key = next(
            (f"the key {key!r} is not text" for key in value if type(value) is dict and type(key) is not str), ""
        )
        items = value.values() if type(value) is dict else value
        return wrong_key or next((problem for item in items if (problem := _json_problem(item, depth + 1))), "")
    if type(value) is int:
        return "" if -MAX_INT <= value < MAX_INT else "the whole number does not fit 64 bits"
    if type(value) is float:
        return "" if math.isfinite(value) else f"{value} is not a number that JSON can carry"
    return "" if value is None or type(value) in {bool, str} else _foreign_type(value)


def _foreign_type(value: Any) -> str:
    advice = {"tuple": "; write a list", "set": "; write a list"}.get(type(value).__name__, "")
    return f"a {type(value).__name__} is not JSON{advice}" + ("; call .item()" if hasattr(value, "item") else "")


def _unknown(name: str, known: list[str]) -> RefusedInput:
    near = difflib.get_close_matches(name, known, 1)
    return RefusedInput(
        "unknown_parameter",
        f"There is no parameter {name!r}.",
        hint=(f"Did you mean {near[0]!r}? " if near else "") + f"Known: {', '.join(known) or 'none'}.",
        detail={"name": name, "known": known, "nearest": near[0] if near else None},
    )


def _check_value(parameter: Parameter, value: Any) -> None:
    if value is None and parameter.nullable:
        return
    given = "null" if value is None else type_of(value)
    fits = parameter.type in {"any", given} or (parameter.type == "float" and given == "int")
    if not fits:
        raise RefusedInput(
            "wrong_type",
            f"{parameter.name!r} takes {parameter.type}, and {_short(value)} is {given}.",
            hint=f"Give a value like {_short(parameter.default)}." if parameter.default is not None else "",
            detail={"name": parameter.name, "expected": parameter.type, "given": given},
        )
    if parameter.choices is not None and value not in parameter.choices:
        raise RefusedInput(
            "not_a_choice",
            f"{parameter.name!r} can't be {_short(value)}.",
            hint=f"It may be {', '.join(map(_short, parameter.choices))}.",
            detail={"name": parameter.name, "choices": list(parameter.choices)},
        )


def _check_required(parameters: Iterable[Parameter], params: Mapping[str, Any]) -> None:
    missing = [parameter.name for parameter in parameters if parameter.required and parameter.name not in params]
    if missing:
        raise RefusedInput(
            "missing_parameter",
            f"The work needs a value for {', '.join(map(repr, missing))}.",
            hint=f"Give it, as -p {missing[0]} VALUE or params={{{missing[0]!r}: …}}.",
            detail={"missing": missing},
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def parameters_source(params: Mapping[str, Any]) -> str:
    """Python source of an injected parameters cell: assignments of literals, in the order given."""
    check_params(None, params)
    return "# Parameters\n" + "".join(f"{name} = {value!r}\n" for name, value in params.items())


def value_from_text(text: str, kind: ParameterType = "any") -> Any:
    """The JSON value that a user typed for a parameter of this type; the text itself when it is not JSON.

    ``"5"`` is 5 for ``int`` and ``any`` but ``"5"`` for ``str``; ``true``/``True`` are bools; `check_params` judges
    the result.
    """
    if kind == "str":
        return text
    plain = text.strip()
    words: dict[str, Any] = {"true": True, "false": False, "null": None, "none": None}
    if plain.lower() in words:
        return words[plain.lower()]
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(plain)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
        return float(value) if kind == "float" and type(value) is int else value
    return text
