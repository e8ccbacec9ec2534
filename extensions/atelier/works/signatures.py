"""The parameters of a function, read from its definition."""

from __future__ import annotations

import ast

from atelier.errors import RefusedInput
from atelier.works.parameters import Parameter, parameter_of

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef, notes: dict[int, str]) -> tuple[Parameter, ...] | None:
    """The parameters of a function, with the comments beside them by their lines; None when they can't be known.

    Raises
    ------
    RefusedInput
        ``unknown_work``: a parameter has a position only, or a call runs nothing of it (a generator).
    """
    if not node.decorator_list and _yields(node):  # a decorator may well make something of it that runs
        raise RefusedInput(
            "unknown_work",
            f"{node.name!r} is a generator: it has a 'yield', and calling it runs none of its lines.",
            hint="Name a function that goes through it.",
        )
    if node.args.kwarg is not None or any(_replaces_signature(decorator) for decorator in node.decorator_list):
        return None
    named = [*node.args.posonlyargs, *node.args.args]
    defaults: list[ast.expr | None] = [None] * (len(named) - len(node.args.defaults)) + list(node.args.defaults)
    for argument, default in list(zip(named, defaults, strict=True))[: len(node.args.posonlyargs)]:
        if default is None:
            raise RefusedInput(
                "unknown_work",
                f"{node.name!r} takes {argument.arg!r} by position only; parameters are given by name.",
                hint="Remove the '/' from its signature.",
            )
    pairs = [*zip(named, defaults, strict=True)][len(node.args.posonlyargs) :]
    pairs += zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    return tuple(
        parameter_of(argument.arg, default, argument.annotation, _note(notes, node, argument))
        for argument, default in pairs
    )


def _note(notes: dict[int, str], node: ast.AST, argument: ast.arg) -> str:
    alone = getattr(node, "lineno", 0) != argument.lineno
    return notes.get(argument.lineno, "") if alone else ""


def _replaces_signature(decorator: ast.expr) -> bool:
    """Whether a decorator (click's, typer's, hydra's) makes a callable with another signature."""
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(target, ast.Attribute) and target.attr in {"command", "group", "main"}


def _yields(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a function itself, and not only one within it, has a ``yield``."""
    waiting: list[ast.AST] = [*function.body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(node, _SCOPES):
            waiting += ast.iter_child_nodes(node)
    return False
