"""Command lines of scripts: which options an argparse parser declares, and the arguments for given values."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from atelier.errors import RefusedInput
from atelier.works.parameters import Parameter, ParameterType, literal_of, type_of

_TYPES: dict[str, ParameterType] = {"int": "int", "float": "float", "str": "str", "Path": "str"}
_FLAGS: dict[str, bool] = {"store_true": False, "store_false": True}
_IGNORED = frozenset({"help", "version"})
_NUMBER = re.compile(r"-\d+|-\d*\.\d+")
"""What argparse takes for a negative number, as it has it."""


@dataclass(frozen=True)
class _Argument:
    """One ``add_argument`` call: the parameter and how its value is written on a command line."""

    parameter: Parameter
    option: str
    action: str
    many: bool


def argparse_parameters(tree: ast.Module) -> tuple[Parameter, ...] | None:
    """The parameters that a script's argparse parser takes.

    Returns
    -------
    tuple of Parameter, or None
        None when they can't be known from the source: no ``add_argument`` in it, names that are no literals,
        subcommands, parent parsers, or ``parse_known_args``.
    """
    arguments = _arguments(tree)
    return None if arguments is None else tuple(argument.parameter for argument in arguments)


def script_arguments(tree: ast.Module, params: Mapping[str, Any]) -> list[str]:
    """The command line for values that were checked: options first, then positional ones in the parser's order."""
    known = {argument.parameter.name: argument for argument in _arguments(tree) or ()}
    options: list[str] = []
    positional: list[str] = []
    for name, value in params.items():
        argument = known.get(name, _Argument(Parameter(name), f"--{name}", "store", False))
        if argument.option:
            options += _written(argument, value)
    for name, argument in known.items():
        if not argument.option and params.get(name) is not None:
            positional += _texts(argument, params[name])
    takes_all = any(known[name].many and known[name].option for name in params if name in known)
    if positional and (takes_all or any(text.startswith("-") for text in positional)):
        positional = ["--", *positional]
    return options + positional


def _written(argument: _Argument, value: Any) -> list[str]:
    option, action = argument.option, argument.action
    if value is None:
        return []
    if action in _FLAGS:
        return [option] if value is not _FLAGS[action] else []
    if action == "BooleanOptionalAction":
        return [option if value else "--no-" + option.removeprefix("--")]
    if action == "count":
        return [option] * int(value)
    if argument.many or action == "extend":
        return _written_many(option, _texts(argument, value))
    return [f"{option}={text}" for text in _texts(argument, value)]


def _written_many(option: str, texts: list[str]) -> list[str]:
    """An option with several values; argparse takes one that begins with a dash for an option, but behind ``=``."""
    dashed = [text for text in texts if text.startswith("-") and not _NUMBER.fullmatch(text)]
    if not dashed:
        return [option, *texts]
    if len(texts) == 1:
        return [f"{option}={texts[0]}"]
    raise _bad_argument(option, dashed[0])


def _bad_argument(name: str, text: str) -> RefusedInput:
    return RefusedInput(
        "bad_argument",
        f"{name} can't be given {text[:80]!r} here: argparse would take it for an option, or lose it.",
        hint="Give another value, or have the script read its values from a file.",
    )


def _texts(argument: _Argument, value: Any) -> list[str]:
    is_list = isinstance(value, list) and (argument.many or argument.action in {"append", "extend"})
    texts = [_text(item) for item in value] if is_list else [_text(value)]
    if "--" in texts:  # of which Python before 3.13 makes an empty list
        raise _bad_argument(argument.option or argument.parameter.name, "--")
    return texts


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, bool | int | float) else json.dumps(value)


def _arguments(tree: ast.Module) -> tuple[_Argument, ...] | None:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = {_method(call) for call in calls}
    if "add_argument" not in names or names & {"add_subparsers", "parse_known_args", "set_defaults"}:
        return None
    if any(_method(call) == "ArgumentParser" and _keyword(call, "parents") is not None for call in calls):
        return None
    found: list[_Argument] = []
    ordered = sorted(
        (call for call in calls if _method(call) == "add_argument"), key=lambda call: (call.lineno, call.col_offset)
    )
    for call in ordered:
        argument = _argument(call)
        if argument is None:
            return None
        if argument.action not in _IGNORED:
            found.append(argument)
    return tuple(found)


def _method(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((item.value for item in call.keywords if item.arg == name), None)


def _literal(call: ast.Call, name: str) -> Any:
    node = _keyword(call, name)
    return None if node is None else literal_of(node)[1]


def _argument(call: ast.Call) -> _Argument | None:
    flags = [literal_of(node)[1] for node in call.args]
    if not flags or not all(isinstance(flag, str) for flag in flags) or any(item.arg is None for item in call.keywords):
        return None
    optional = flags[0].startswith("-")
    long = next((flag for flag in flags if flag.startswith("--")), flags[0])
    dest = _literal(call, "dest") or long.lstrip("-").replace("-", "_")
    if not isinstance(dest, str):
        return None
    action = _action(call)
    many = _literal(call, "nargs") is not None and _literal(call, "nargs") != "?"
    parameter = _shaped(_plain_parameter(call, dest), action, many)
    required = _literal(call, "required") is True if optional else _literal(call, "nargs") not in {"?", "*"}
    nullable = not required and parameter.default is None
    return _Argument(replace(parameter, required=required, nullable=nullable), long if optional else "", action, many)


def _action(call: ast.Call) -> str:
    node = _keyword(call, "action")
    if isinstance(node, ast.Constant):
        return str(node.value)
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "store") if node else "store"


def _plain_parameter(call: ast.Call, name: str) -> Parameter:
    default = _literal(call, "default")
    said = _literal(call, "choices")
    choices = tuple(said) if isinstance(said, list | dict) else ()  # of anything else nothing is known
    node = _keyword(call, "type")
    kind: ParameterType = "any"
    if node is None:
        kind = type_of(default) if default is not None else type_of(choices[0]) if choices else "str"
    elif isinstance(node, ast.Name | ast.Attribute):
        kind = _TYPES.get(node.attr if isinstance(node, ast.Attribute) else node.id, "any")
    words = _literal(call, "help")
    return Parameter(name, kind, default, False, words if isinstance(words, str) else "", choices or None)


def _shaped(parameter: Parameter, action: str, many: bool) -> Parameter:
    if action in _FLAGS:
        default = _FLAGS[action] if parameter.default is None else parameter.default
        return replace(parameter, type="bool", default=default)
    if action == "BooleanOptionalAction":
        return replace(parameter, type="bool")
    if action == "count":
        return replace(parameter, type="int")
    if many or action in {"append", "extend"}:
        return replace(parameter, type="list", choices=None)
    return parameter
