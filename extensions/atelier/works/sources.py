"""Python source out of notebooks and files: cells, IPython's own lines, and syntax errors told with cell and line.

Nothing here runs user code, and nothing imports nbformat (0.4 s): a notebook is JSON, of which the needed parts are
checked.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from atelier.errors import RefusedInput

PYTHON_CELL_MAGICS = frozenset({"time", "timeit", "capture", "prun", "python", "python3", "mprun", "memray_flamegraph"})
"""Cell magics whose body is still Python of this kernel; the cell of any other one is not looked into."""

_LINE_MAGIC = re.compile(r"^(\s*)(?:[\w.,\s\[\]]+=\s*)?(?:%{1,2}[A-Za-z_]|!|\?)")
_HELP = re.compile(r"^(\s*)[\w.%*\[\]'\"]+\s*\?{1,2}\s*$")
_RUN_MAGIC = re.compile(r"^\s*%run\s+(?:-[a-zA-Z]+\s+)*(['\"]?)([^\s'\"]+)\1")
_TOP_LEVEL_AWAIT = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


@dataclass(frozen=True)
class Cell:
    """A code cell; ``number`` counts from 1 over the notebook's code cells."""

    number: int
    source: str
    tags: tuple[str, ...] = ()


def notebook_cells(content: bytes, name: str) -> tuple[Cell, ...]:
    """The code cells of a notebook.

    Parameters
    ----------
    content : bytes
        The notebook file.
    name : str
        What messages call it.

    Raises
    ------
    RefusedInput
        ``empty_work``, ``bad_notebook`` (not JSON, no cells, another format than 4), ``not_python`` (another kernel
        language).
    """
    notebook = notebook_json(content, name)
    _check_language(notebook.get("metadata"), name)
    code = [cell for cell in notebook["cells"] if cell.get("cell_type") == "code"]
    return tuple(_cell(number, cell, name) for number, cell in enumerate(code, start=1))


def notebook_json(content: bytes, name: str) -> dict[str, Any]:
    """A notebook's JSON with its ``cells`` checked to be a list of objects; raises as `notebook_cells`."""
    if not content.strip():
        raise empty_work(name)
    try:
        notebook = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as problem:
        raise _bad_notebook(name, f"it is not JSON ({_first_line(problem)})") from problem
    if not isinstance(notebook, dict):
        raise _bad_notebook(name, "its JSON is not an object")
    why = _format_problem(notebook)
    if why:
        raise _bad_notebook(name, why)
    return notebook


def _format_problem(notebook: dict[str, Any]) -> str:
    """Why nbformat could not run it, as the rest of a sentence; empty when it can."""
    major, minor, cells = notebook.get("nbformat"), notebook.get("nbformat_minor"), notebook.get("cells")
    if type(major) is int and 0 < major < 4:
        return f"it has the old format {major}"
    if type(major) is not int or major != 4 or type(minor) is not int:
        return f"its format is {str(major)[:20]}.{str(minor)[:20]}, and only 4 is known"
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        return "it has no list of cells"
    if not all(isinstance(part.get("metadata"), dict) for part in (notebook, *cells)):
        return "it, or a cell of it, has no metadata"
    if not all(isinstance(cell.get("cell_type"), str) for cell in cells):
        return "a cell has no type"
    return ""


def empty_work(name: str) -> RefusedInput:
    """The error for a file with nothing in it."""
    return RefusedInput("empty_work", f"{name} is empty.", hint="Save the file with some code in it and submit again.")


def _bad_notebook(name: str, why: str) -> RefusedInput:
    return RefusedInput(
        "bad_notebook", f"{name} is not a notebook: {why}.", hint="Open it in JupyterLab, save it, and submit again."
    )


def _first_line(problem: BaseException) -> str:
    return (str(problem).splitlines() or [type(problem).__name__])[0][:200]


def _check_language(metadata: object, name: str) -> None:
    known = metadata if isinstance(metadata, dict) else {}
    parts = (("kernelspec", "language"), ("language_info", "name"))
    for part, key in parts:
        section = known.get(part)
        language = section.get(key) if isinstance(section, dict) else None
        if isinstance(language, str) and language:
            if language.lower() in {"python", "python3", "ipython"}:
                return
            raise RefusedInput(
                "not_python",
                f"{name} is written in {language}; only Python notebooks can be run.",
                hint="Pick a Python kernel for the notebook and save it.",
                detail={"language": language},
            )


def _cell(number: int, cell: dict[str, Any], name: str) -> Cell:
    source = cell.get("source", "")
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str):
        raise _bad_notebook(name, f"the source of code cell {number} is not text")
    metadata = cell.get("metadata")
    tags = metadata.get("tags") if isinstance(metadata, dict) else None
    return Cell(number, source, tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else ())


def parse_file(content: bytes, name: str) -> ast.Module:
    """The syntax tree of a Python file.

    Raises
    ------
    RefusedInput
        ``empty_work`` or ``syntax_error`` (detail: file, line, text).
    """
    if not content.strip():
        raise empty_work(name)
    tree, problem = _try_parse(content)
    if tree is None:
        raise _syntax_error(name, None, problem)
    return tree


def parse_cell(cell: Cell, name: str) -> ast.Module:
    """The syntax tree of a code cell, where lines of IPython (``%magic``, ``!shell``, ``help?``) count as ``pass``.

    Raises
    ------
    RefusedInput
        ``syntax_error`` (detail: file, cell, line, text).
    """
    source = _without_cell_magic(cell.source)
    tree, problem = _try_parse(source)
    lines = source.split("\n")
    while tree is None:
        line = getattr(problem, "lineno", None) or 0
        if not _replace_ipython_line(lines, line - 1) and not _replace_all(lines):
            raise _syntax_error(name, cell, problem)
        tree, problem = _try_parse("\n".join(lines))
    return tree


def _try_parse(source: str | bytes) -> tuple[ast.Module | None, Exception | None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = compile(source, "<work>", "exec", _TOP_LEVEL_AWAIT, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as problem:
        return None, problem
    assert isinstance(tree, ast.Module)
    return tree, None


def _without_cell_magic(source: str) -> str:
    first = next((line for line in source.split("\n") if line.strip()), "")
    match = re.match(r"%%(\w+)", first)
    if match is None:
        return source
    return source.replace(first, "pass", 1) if match[1] in PYTHON_CELL_MAGICS else ""


def _replace_ipython_line(lines: list[str], index: int) -> bool:
    """Put ``pass`` in the place of an IPython line and of the lines it continues on; False when it is none."""
    if not 0 <= index < len(lines):
        return False
    line = lines[index]
    match = _LINE_MAGIC.match(line) or _HELP.match(line)
    if match is None:
        return False
    run = _RUN_MAGIC.match(line)
    while lines[index].rstrip().endswith("\\") and index + 1 < len(lines):
        lines[index], index = _same_place("pass", line), index + 1
    lines[index] = _same_place(repr(run[2]) if run else "pass", line)
    return True


def _same_place(statement: str, line: str) -> str:
    indent = line[: len(line) - len(line.lstrip())]
    return indent + statement


def _replace_all(lines: list[str]) -> bool:
    replaced = [_replace_ipython_line(lines, index) for index in range(len(lines))]
    return any(replaced)


def _syntax_error(name: str, cell: Cell | None, problem: Exception | None) -> RefusedInput:
    line = getattr(problem, "lineno", None)
    text = (getattr(problem, "text", None) or "").strip()[:200]
    words = getattr(problem, "msg", None) or _first_line(problem or SyntaxError())
    place = name + (f", cell {cell.number}" if cell else "") + (f", line {line}" if line else "")
    return RefusedInput(
        "syntax_error",
        f"{place}: {words}" + (f": {text}" if text else ""),
        hint="Mend that line, save the file, and submit again.",
        detail={"file": name, "cell": cell.number if cell else None, "line": line, "text": text},
    )


def comments(source: str) -> dict[int, str]:
    """Line number → text of the comment at its end; what can be read before a line that is not Python."""
    return dict(_comment_tokens(source))


def _comment_tokens(source: str) -> Iterator[tuple[int, str]]:
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string.lstrip("#").strip()
    except (tokenize.TokenError, SyntaxError):
        return
