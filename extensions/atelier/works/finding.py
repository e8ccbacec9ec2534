"""What a work is and which parameters it takes, found by reading its source; nothing of the user's is ever run."""

from __future__ import annotations

import ast
import difflib
import errno
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from atelier.errors import RefusedInput
from atelier.records import Work, WorkKind
from atelier.works.arguments import argparse_parameters, script_arguments
from atelier.works.parameters import (
    Parameter,
    check_name,
    check_params,
    parameter_of,
    parameters_source,
    value_from_text,
)
from atelier.works.signatures import signature
from atelier.works.sources import Cell, comments, empty_work, notebook_cells, parse_cell, parse_file

__all__ = [
    "FoundWork",
    "Parameter",
    "check_name",
    "check_params",
    "check_work",
    "find_work",
    "inspect_work",
    "module_file",
    "parameters_source",
    "script_argv",
    "value_from_text",
]

Read = Callable[[str], bytes]
"""Gives a file's content by its POSIX path within the root or bundle; raises FileNotFoundError when there is none."""

_DOTTED = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*(?::[^\W\d]\w*)?")
_MAX_IMPORTS = 16
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_FORMS = "Give notebook.ipynb, script.py, package.module or package.module:function."


@dataclass(frozen=True)
class FoundWork:
    """A work on this machine.

    ``path`` is the absolute file that holds it, ``folder`` the absolute working directory of its run, ``target`` the
    file's name for a notebook or script, else ``package.module`` or ``package.module:function``.
    """

    kind: WorkKind
    target: str
    path: Path
    folder: Path


def find_work(text: str, cwd: Path) -> FoundWork:
    """The work that a user names.

    Parameters
    ----------
    text : str
        ``notebook.ipynb``, ``script.py`` (relative to cwd or absolute), ``package.module`` or
        ``package.module:function``; modules are looked for in cwd, its ``src``, and upwards to the top of the git
        repository around it.
    cwd : Path
        Where relative names begin.

    Raises
    ------
    RefusedInput
        ``work_not_found``, ``work_is_directory``, ``empty_work``, ``unknown_work`` (none of the four forms, not a
        file).
    """
    named = text.strip()
    if not named or "\0" in named:
        raise RefusedInput("unknown_work", f"{text!r} names no work.", hint=_FORMS)
    is_path = named.endswith((".ipynb", ".py")) or "/" in named
    if is_path or not _DOTTED.fullmatch(named) or os.path.isfile(cwd / named):
        return _find_file(named, cwd)
    return _find_module(named, cwd)


def _find_file(named: str, cwd: Path) -> FoundWork:
    given = cwd / os.path.expanduser(named)
    path = Path(os.path.realpath(given.parent)) / given.name
    try:
        status = path.stat()
    except OSError as problem:
        raise _not_found(named, path) from problem
    if stat.S_ISDIR(status.st_mode):
        raise _is_directory(named)
    kinds = {".ipynb": WorkKind.NOTEBOOK, ".py": WorkKind.SCRIPT}
    if path.suffix not in kinds or not stat.S_ISREG(status.st_mode):
        raise RefusedInput("unknown_work", f"{named!r} is neither a notebook nor a Python file.", hint=_FORMS)
    if status.st_size == 0:
        raise empty_work(named)
    return FoundWork(kinds[path.suffix], path.name, path, path.parent)


def _is_directory(named: str) -> RefusedInput:
    return RefusedInput("work_is_directory", f"{named!r} is a folder.", hint="Name the notebook or script in it.")


def _not_found(named: str, path: Path) -> RefusedInput:
    try:
        known = [entry.name for entry in path.parent.iterdir() if entry.suffix in {".ipynb", ".py"}]
    except OSError:
        known = []
    near = difflib.get_close_matches(path.name, known, 1)
    return RefusedInput(
        "work_not_found",
        f"There is no file {named!r}.",
        hint=f"Did you mean {near[0]!r}?" if near else "Look at the name, and at the folder you are in.",
        detail={"path": str(path), "nearest": near[0] if near else None},
    )


def _find_module(named: str, cwd: Path) -> FoundWork:
    module, _, function = named.partition(":")
    for folder in _import_folders(cwd.resolve()):
        file = module_file(lambda name, base=folder: (base / name).read_bytes(), module, run=not function)  # type: ignore[misc]
        if file is not None:
            return FoundWork(WorkKind.FUNCTION if function else WorkKind.MODULE, named, folder / file, folder)
    if not function and os.path.isdir(cwd / named):
        raise _is_directory(named)
    if not function and os.path.exists(cwd / f"{named}.ipynb"):
        raise _not_found(f"{named}.ipynb" if os.path.isdir(cwd / f"{named}.ipynb") else named, cwd / named)
    is_file = module.endswith(".py") and os.path.isfile(cwd / module)
    advice = f"Write {module[:-3]}:{function}. " if is_file else "Go to the folder that holds it, or name the file. "
    raise RefusedInput(
        "work_not_found",
        f"There is no module {module!r} in {cwd} or above it.",
        hint=advice + _FORMS,
        detail={"module": module},
    )


def _import_folders(cwd: Path) -> Iterator[Path]:
    """cwd and its ``src``; then the folders above it with theirs, up to the top of the git repository around cwd."""
    top = next((folder for folder in (cwd, *cwd.parents) if (folder / ".git").exists()), cwd)
    for folder in (cwd, *cwd.parents):
        yield folder
        yield folder / "src"
        if folder == top:
            return


def module_file(read: Read, module: str, *, run: bool = False) -> str | None:
    """The file of a module below a folder, as a POSIX path; None when it is not there.

    With ``run`` it is the file that ``python -m`` executes: ``package/__main__.py`` instead of ``package/__init__.py``.
    """
    stem = module.replace(".", "/")
    for name in (f"{stem}/__main__.py" if run else f"{stem}/__init__.py", f"{stem}.py"):
        try:
            read(name)
        except OSError as problem:
            if not isinstance(problem, _ABSENT) and problem.errno not in {errno.ELOOP, errno.ENAMETOOLONG}:
                raise
            continue
        return name
    return None


def check_work(read: Read, work: Work, params: Mapping[str, Any]) -> tuple[Parameter, ...] | None:
    """`inspect_work`, then `check_params`; returns the parameters. Also raises ``bad_folder`` and ``bad_argument``."""
    parameters = inspect_work(read, work)
    check_params(parameters, params, notebook=work.kind is WorkKind.NOTEBOOK)
    _check_folder(read, work)
    if work.kind in {WorkKind.SCRIPT, WorkKind.MODULE}:
        script_argv(read, work, params)
    return parameters


def _check_folder(read: Read, work: Work) -> None:
    """A module was found below its folder; of the others the folder is looked at here."""
    within, folder = PurePosixPath(work.target).parent, PurePosixPath(work.folder)
    if work.kind in {WorkKind.MODULE, WorkKind.FUNCTION} or folder == within:
        return
    if work.kind is WorkKind.SCRIPT or not (folder == PurePosixPath() or _is_folder(read, str(folder))):
        raise RefusedInput(
            "bad_folder",
            f"{work.target[:200]!r} can't be run in the folder {work.folder[:200]!r}.",
            hint=f"The folder that it is in is {str(within)[:200]!r}.",
        )


def _is_folder(read: Read, name: str) -> bool:
    try:
        read(name)
    except IsADirectoryError:
        return True
    except (FileNotFoundError, NotADirectoryError):
        return False
    return False


def inspect_work(read: Read, work: Work) -> tuple[Parameter, ...] | None:
    """The parameters of a work, in their order in the source.

    Parameters
    ----------
    read : callable
        Gives a file's bytes by its path in the bundle or folder; FileNotFoundError when there is none.
    work : Work
        What to look at.

    Returns
    -------
    tuple of Parameter, or None
        None when they can't be known: a script without argparse, a function with ``**kwargs``.

    Raises
    ------
    RefusedInput
        ``work_not_found``, ``empty_work``, ``bad_notebook``, ``not_python``, ``syntax_error``, ``unknown_work`` (no
        such function).
    """
    if work.kind is WorkKind.NOTEBOOK:
        return _notebook_parameters(_read_work(read, work.target), work.target)
    if work.kind is WorkKind.SCRIPT:
        return argparse_parameters(parse_file(_read_work(read, work.target), work.target))
    module, _, function = work.target.partition(":")
    if function:
        return _function_parameters(lambda name: read(_joined(work.folder, name)), module, function)
    file = module_file(lambda name: read(_joined(work.folder, name)), module, run=True)
    path = _joined(work.folder, file or module.replace(".", "/") + ".py")
    return argparse_parameters(parse_file(_read_work(read, path), path))


def script_argv(read: Read, work: Work, params: Mapping[str, Any]) -> list[str]:
    """The command line of a script or module for these values; ``--name=value`` where its parser can't be known."""
    path = work.target
    if work.kind is not WorkKind.SCRIPT:
        file = module_file(lambda name: read(_joined(work.folder, name)), work.target, run=True)
        path = _joined(work.folder, file or work.target.replace(".", "/") + ".py")
    return script_arguments(parse_file(_read_work(read, path), path), params)


def _joined(folder: str, name: str) -> str:
    return str(PurePosixPath(folder, name))


def _read_work(read: Read, name: str) -> bytes:
    try:
        return read(name)
    except (FileNotFoundError, NotADirectoryError) as problem:
        raise RefusedInput("work_not_found", f"There is no file {name!r}.", hint="Look at the name.") from problem
    except IsADirectoryError as problem:
        raise _is_directory(name) from problem
    except PermissionError as problem:
        raise RefusedInput(
            "work_not_readable", f"{name!r} may not be read.", hint="Change its permissions."
        ) from problem


def _notebook_parameters(content: bytes, name: str) -> tuple[Parameter, ...]:
    cells = notebook_cells(content, name)
    trees = [parse_cell(cell, name) for cell in cells]
    for cell, tree in zip(cells, trees, strict=True):
        if "parameters" in cell.tags:
            return _assigned(cell, tree)
    return ()


def _assigned(cell: Cell, tree: ast.Module) -> tuple[Parameter, ...]:
    notes = comments(cell.source)
    found: dict[str, Parameter] = {}
    for node in tree.body:
        if isinstance(node, ast.AnnAssign):
            targets: list[ast.expr] = [node.target]
            annotation = node.annotation
        elif isinstance(node, ast.Assign):
            targets, annotation = node.targets, None
        else:
            continue
        for target in targets:
            if isinstance(target, ast.Name):
                help_text = notes.get(node.end_lineno or node.lineno, "")
                found[target.id] = parameter_of(target.id, node.value, annotation, help_text)
    return tuple(found.values())


def _function_parameters(read: Read, module: str, function: str) -> tuple[Parameter, ...] | None:
    file = module_file(read, module)
    if file is None:
        raise RefusedInput("work_not_found", f"There is no module {module!r} in the code.", hint=_FORMS)
    known: set[str] = set()
    node, source = _find_function(read, module, function, known, 0)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return signature(node, comments(source))
    if node is not None:
        return None
    near = difflib.get_close_matches(function, sorted(known), 1)
    raise RefusedInput(
        "unknown_work",
        f"The module {module!r} has no function {function!r}.",
        hint=(f"Did you mean {near[0]!r}? " if near else "") + f"Known: {', '.join(sorted(known)) or 'none'}.",
        detail={"known": sorted(known), "nearest": near[0] if near else None},
    )


@dataclass(frozen=True)
class _Elsewhere:
    """Where an import says that a name is defined; ``star`` when it only may be there."""

    module: str
    name: str
    star: bool


def _find_function(read: Read, module: str, name: str, known: set[str], depth: int) -> tuple[ast.AST | None, str]:
    """What binds a name, followed through ``from … import``, and its source; functions' names go to ``known``."""
    file = module_file(read, module)
    content = read(file) if file is not None and depth <= _MAX_IMPORTS else b""
    if file is None or not content.strip():
        return None, ""
    package = module if file.endswith("/__init__.py") else module.rpartition(".")[0]
    bound: ast.AST | _Elsewhere | None = None
    for node in _statements(parse_file(content, file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            known.add(node.name)
        found = _bound_by(node, name, package)
        if found is not None and not (isinstance(found, _Elsewhere) and found.star and bound is not None):
            bound = found
    if not isinstance(bound, _Elsewhere):
        return bound, content.decode("utf-8", "replace")
    there, source = _find_function(read, bound.module, bound.name, known, depth + 1)
    # An import from outside the code binds the name all the same; nothing is known of it then.
    return (there, source) if there is not None or bound.star else (ast.Pass(), "")


def _bound_by(node: ast.stmt, name: str, package: str) -> ast.AST | _Elsewhere | None:
    """The definition of a name in a statement, where it lies elsewhere, or None."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return node if node.name == name else None
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return node if any(isinstance(target, ast.Name) and target.id == name for target in targets) else None
    if not isinstance(node, ast.ImportFrom):
        return None
    origins = {alias.asname or alias.name: alias.name for alias in node.names}
    if name not in origins and "*" not in origins:
        return None
    parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    module = ".".join(part for part in (*parents, node.module or "") if part)
    return _Elsewhere(module, origins.get(name, name), star=name not in origins)


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements of a module's top level in their order, also those below ``if``, ``try`` and ``with``."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.stmt):
            yield node
        if isinstance(node, ast.Module | ast.If | ast.Try | ast.With | ast.ExceptHandler):
            waiting += reversed([child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr)])
