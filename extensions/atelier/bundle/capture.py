"""The import closure of a work: which local modules and files its source names, read from the source alone."""

from __future__ import annotations

import ast
import posixpath
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from atelier.errors import RefusedInput
from atelier.records import Work, WorkKind
from atelier.works.finding import Read, module_file
from atelier.works.sources import notebook_cells, parse_cell, parse_file

_MAX_FILES = 5_000
_MAX_NAME = 300
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
_CATCHES_IMPORT = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})


@dataclass
class Closure:
    """What a work's source leads to.

    Attributes
    ----------
    files : set of str
        The work and every local module it imports, as paths below the root.
    foreign : set of str
        Top-level names of imported modules that are neither local nor of the standard library; those that the code
        can do without (``try: import x except ImportError``) are left out.
    named : set of str
        Texts in the source that may be names of files.
    outside : set of str
        Folders outside the root that the code adds to ``sys.path``.
    unreadable : set of str
        Modules that are no valid Python.
    """

    files: set[str] = field(default_factory=set)
    foreign: set[str] = field(default_factory=set)
    named: set[str] = field(default_factory=set)
    outside: set[str] = field(default_factory=set)
    unreadable: set[str] = field(default_factory=set)


def imported_modules(read: Read, work: Work) -> set[str]:
    """Top-level names of modules that a work needs and that are neither local nor of the standard library."""
    return import_closure(read, work).foreign


def import_closure(read: Read, work: Work) -> Closure:
    """Follow the imports of a work through the local modules.

    Raises
    ------
    RefusedInput
        ``syntax_error`` and its like for the work itself; a module that can't be parsed is only noted.
    """
    return _Walk(read, work.folder).follow(work)


@dataclass(frozen=True)
class _Import:
    module: str
    level: int
    names: tuple[str, ...]
    optional: bool


class _Walk:
    """One walk through the source, from the work outward."""

    def __init__(self, read: Read, folder: str) -> None:
        self._source = read
        self._seen: dict[str, bytes | None] = {}
        self._folder = folder
        self._search = [folder]
        self._waiting: list[str] = []
        self.found = Closure()

    def follow(self, work: Work) -> Closure:
        start = work.target
        if work.kind in {WorkKind.MODULE, WorkKind.FUNCTION}:
            module = work.target.partition(":")[0]
            self._add(self._module_files(module, self._folder, run=work.kind is WorkKind.MODULE))
        else:
            self._add([start])
        first = True
        while self._waiting and len(self.found.files) <= _MAX_FILES:
            name = self._waiting.pop()
            self._look_into(name, must_parse=first and work.kind in {WorkKind.NOTEBOOK, WorkKind.SCRIPT})
            first = False
        return self.found

    def _read(self, name: str) -> bytes:
        if name not in self._seen:
            try:
                self._seen[name] = self._source(name)
            except _ABSENT:
                self._seen[name] = None
        content = self._seen[name]
        if content is None:
            raise FileNotFoundError(name)
        return content

    def _add(self, names: list[str]) -> None:
        fresh = [name for name in names if name not in self.found.files]
        self.found.files.update(fresh)
        self._waiting.extend(fresh)

    def _look_into(self, name: str, *, must_parse: bool) -> None:
        try:
            trees = self._trees(name)
        except RefusedInput as problem:
            if must_parse:
                raise
            if problem.code != "empty_work":
                self.found.unreadable.add(name)
            return
        for tree in trees:
            self._note_paths(tree)
        for tree in trees:
            for wanted in _imports(tree):
                self._follow_import(wanted, name)
            self._note_texts(tree)

    def _trees(self, name: str) -> list[ast.Module]:
        content = self._read(name)
        if name.endswith(".ipynb"):
            return [parse_cell(cell, name) for cell in notebook_cells(content, name)]
        return [parse_file(content, name)]

    def _follow_import(self, wanted: _Import, name: str) -> None:
        if wanted.level:
            base = posixpath.normpath(posixpath.join(posixpath.dirname(name), *[".."] * (wanted.level - 1)))
            if not base.startswith(".."):
                self._follow_in(wanted, base)
            return
        followed = [self._follow_in(wanted, base) for base in self._search]
        top = wanted.module.partition(".")[0]
        if not any(followed) and top not in sys.stdlib_module_names and not wanted.optional:
            self.found.foreign.add(top)

    def _follow_in(self, wanted: _Import, base: str) -> bool:
        files = self._module_files(wanted.module, base) if wanted.module else self._package_file(base)
        for part in wanted.names:
            if part == "*":
                files += self._star_files(files[-1:])
            else:
                files += self._module_files(f"{wanted.module}.{part}".lstrip("."), base)
        self._add(files)
        return bool(files)

    def _module_files(self, module: str, base: str, *, run: bool = False) -> list[str]:
        """The files that importing a module loads: each package's ``__init__`` on the way, then its own."""
        parts = module.split(".")
        found = []
        for length in range(1, len(parts) + 1):
            name = ".".join(parts[:length])
            last = module_file(self._below(base), name, run=run and length == len(parts))
            found += [last] if last is not None else []
        return [posixpath.normpath(posixpath.join(base, name)) for name in found]

    def _below(self, base: str) -> Read:
        return lambda name: self._read(posixpath.normpath(posixpath.join(base, name)))

    def _package_file(self, base: str) -> list[str]:
        name = posixpath.normpath(posixpath.join(base, "__init__.py"))
        return [name] if self._exists(name) else []

    def _star_files(self, package: list[str]) -> list[str]:
        """Submodules that ``__all__`` of a package names."""
        if not package or not package[0].endswith("__init__.py"):
            return []
        try:
            tree = parse_file(self._read(package[0]), package[0])
        except RefusedInput:
            return []
        texts = [
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        names = [f"{posixpath.dirname(package[0])}/{text}.py" for text in texts if text.isidentifier()]
        return [name for name in names if self._exists(name)]

    def _exists(self, name: str) -> bool:
        try:
            self._read(name)
        except FileNotFoundError:
            return False
        return True

    def _note_paths(self, tree: ast.Module) -> None:
        """Literal additions to ``sys.path`` are places to import from."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _dotted(node.func) in {
                "sys.path.append",
                "sys.path.insert",
                "site.addsitedir",
            }:
                texts = [
                    item.value for item in node.args if isinstance(item, ast.Constant) and isinstance(item.value, str)
                ]
                for text in texts:
                    self._note_path(text)

    def _note_path(self, text: str) -> None:
        place = posixpath.normpath(posixpath.join(self._folder, text))
        if place.startswith(("..", "/")):
            self.found.outside.add(text)
        elif place not in self._search:
            self._search.append(place)

    def _note_texts(self, tree: ast.Module) -> None:
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and len(text) <= _MAX_NAME and text.strip() and "\0" not in text:
                self._note_text(text)

    def _note_text(self, text: str) -> None:
        self.found.named.add(text)
        if PurePosixPath(text).suffix in {".py", ".ipynb"} and not text.startswith(("/", "~")):
            name = posixpath.normpath(posixpath.join(self._folder, text))
            if not name.startswith("..") and self._exists(name):
                self._add([name])


def _imports(tree: ast.AST) -> Iterator[_Import]:
    """Every import below a node; optional where the code catches its failure, or never makes it at run time."""
    waiting: list[tuple[ast.AST, bool]] = [(tree, False)]
    while waiting:
        node, optional = waiting.pop()
        yield from _imports_of(node, optional)
        if isinstance(node, ast.Try):
            guarded = optional or any(_catches_import(handler) for handler in node.handlers)
            waiting += [(child, guarded) for child in node.body]
            waiting += [(child, optional) for child in (*node.handlers, *node.orelse, *node.finalbody)]
        elif isinstance(node, ast.If) and _dotted(node.test).rpartition(".")[2] == "TYPE_CHECKING":
            waiting += [(child, True) for child in node.body] + [(child, optional) for child in node.orelse]
        else:
            waiting += [(child, optional) for child in ast.iter_child_nodes(node)]


def _imports_of(node: ast.AST, optional: bool) -> Iterator[_Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield _Import(alias.name, 0, (), optional)
    elif isinstance(node, ast.ImportFrom):
        yield _Import(node.module or "", node.level, tuple(alias.name for alias in node.names), optional)
    elif isinstance(node, ast.Call) and _dotted(node.func) in {
        "importlib.import_module",
        "import_module",
        "__import__",
    }:
        first = node.args[0] if node.args else None
        if (
            isinstance(first, ast.Constant)
            and isinstance(first.value, str)
            and first.value.replace(".", "_").isidentifier()
        ):
            yield _Import(first.value, 0, (), True)


def _catches_import(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or _dotted(kind).rpartition(".")[2] in _CATCHES_IMPORT for kind in kinds)


def _dotted(node: ast.AST | None) -> str:
    """``a.b.c`` of an expression that is names and dots only, else what follows its last part that is not."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    parts.append(node.id if isinstance(node, ast.Name) else "")
    return ".".join(reversed(parts))
