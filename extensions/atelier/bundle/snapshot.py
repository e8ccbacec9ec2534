"""Code capture: which files of a workspace go into the bundle of a run, and why the others stay behind."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from atelier.bundle.archive import (
    MANIFEST,
    MAX_FILES,
    PlannedFile,
    bundle_reader,
    read_manifest,
    read_member,
    unpack_bundle,
    write_archive,
)
from atelier.bundle.capture import Closure, import_closure
from atelier.bundle.exclusions import (
    IgnoreRules,
    holds_private_key,
    is_cache_folder,
    is_credential,
    is_executed_copy,
    is_hidden,
    is_worth_a_word,
)
from atelier.bundle.gitstate import GitState, git_state
from atelier.bundle.ignorefile import IgnoreFile
from atelier.bundle.names import no_name
from atelier.errors import RefusedInput
from atelier.home import atelier_home
from atelier.quantities import format_bytes
from atelier.records import Work, WorkKind
from atelier.works.finding import FoundWork

__all__ = [
    "MANIFEST",
    "BundlePlan",
    "PlannedFile",
    "bundle_reader",
    "plan_bundle",
    "read_manifest",
    "read_member",
    "unpack_bundle",
    "write_bundle",
]

BESIDE_THE_WORK = ("requirements.txt", "environment.yml")
"""Files beside the work that always go along: they say what it needs."""

SMALL_FILE_BYTES = 1 << 20
"""How large a file may be that goes along only because the code names it."""

_SHOWN = 10


@dataclass(frozen=True)
class BundlePlan:
    """What a bundle will hold, before it is written.

    ``root`` is the folder it is taken from; paths of ``files`` and ``work`` are POSIX, below it. ``git_revision`` is
    None and ``git_dirty`` False outside a repository.
    """

    root: Path
    work: Work
    files: tuple[PlannedFile, ...]
    size_bytes: int
    warnings: tuple[str, ...]
    git_revision: str | None = None
    git_dirty: bool = False


def plan_bundle(
    found: FoundWork, *, include: Sequence[str] = (), exclude: Sequence[str] = (), limit_bytes: int
) -> BundlePlan:
    """Decide which files a run of this work gets.

    The root is the git top level where git tracks the work, else the work's folder. From it come the files that git
    tracks, or else all files below minus what ``.gitignore`` names; always minus ``.atelierignore``, hidden files,
    credentials, caches and Atelier's own state. The work, the local modules it imports, ``requirements.txt`` beside it
    and what ``include`` names are added. Where the root is the home folder (or above it, or a folder for temporary
    files) only these are taken, and small files that the code names.

    Parameters
    ----------
    found : FoundWork
        As `find_work` gives it.
    include, exclude : sequence of str
        Glob patterns, relative to the work's folder; a folder stands for all in it. ``exclude`` wins.
    limit_bytes : int
        How much the files may hold together.

    Raises
    ------
    RefusedInput
        ``bundle_too_large`` (detail: biggest, as [path, bytes] pairs), ``syntax_error`` and its like for the work.
    """
    return _Planner(found, include, exclude).plan(limit_bytes)


def write_bundle(plan: BundlePlan, destination: Path) -> str:
    """Write the bundle of a plan as a ``tar.zst``; the same files give the same bytes.

    Returns
    -------
    str
        sha256 of the file written.

    Raises
    ------
    Conflict
        ``file_changed``: a file changed while it was read.
    """
    return write_archive(plan.files, destination)


class _Planner:
    """The making of one plan: candidates are gathered, then each is judged by the same rules."""

    def __init__(self, found: FoundWork, include: Sequence[str], exclude: Sequence[str]) -> None:
        self._found = found
        git = git_state(found.path)
        self._root = _root_of(found, git)
        self._git = git if git is not None and git.top == self._root else None
        self._broad = _is_too_broad(self._root)
        self._folder = _posix(os.path.relpath(found.folder, self._root))
        self._include = tuple(include)
        self._excluded = IgnoreFile(exclude)
        self._own_rules = IgnoreRules(self._root, (".atelierignore",))
        self._work_file = _posix(os.path.relpath(found.path, self._root))
        self._warnings: list[str] = []
        self._left_behind: dict[str, list[str]] = {}
        self._real_folders: dict[str, Path] = {}
        self._state = self._name_of(atelier_home().resolve())

    def plan(self, limit_bytes: int) -> BundlePlan:
        is_file = self._found.kind in {WorkKind.NOTEBOOK, WorkKind.SCRIPT}
        work = Work(
            kind=self._found.kind, target=self._work_file if is_file else self._found.target, folder=self._folder
        )
        closure = import_closure(self._read, work)
        taken = self._judged(self._candidates(), self._demanded(closure))
        size_bytes = sum(file.size_bytes for file in taken)
        if size_bytes > limit_bytes or len(taken) > MAX_FILES:
            raise _too_large(taken, size_bytes, limit_bytes)
        self._warn(closure, {file.path for file in taken})
        return BundlePlan(
            root=self._root,
            work=work,
            files=taken,
            size_bytes=size_bytes,
            warnings=tuple(self._warnings),
            git_revision=self._git.revision if self._git else None,
            git_dirty=self._git.dirty if self._git else False,
        )

    def _read(self, name: str) -> bytes:
        path = self._root / name
        try:
            if stat.S_ISREG(path.stat().st_mode):
                return path.read_bytes()
        except OSError as problem:
            if problem.errno not in {errno.ELOOP, errno.ENAMETOOLONG}:
                raise
        raise FileNotFoundError(name)

    def _candidates(self) -> Iterable[str]:
        """Files that go along because of where they are."""
        if self._broad:
            return ()
        if self._git is not None:
            if self._git.submodules:
                self._warnings.append(f"Left out git submodules: {_listed(self._git.submodules)}.")
            return [name for name in self._git.tracked if not self._own_rules.ignores_below(name)]
        return list(_walk(self._root))

    def _demanded(self, closure: Closure) -> set[str]:
        """Files that go along because somebody names them."""
        beside = {posixpath.normpath(posixpath.join(self._folder, name)) for name in BESIDE_THE_WORK}
        names = closure.files | {name for name in beside if (self._root / name).is_file()} | set(self._included())
        if self._broad:
            names |= {name for name in self._named(closure) if (self._root / name).stat().st_size <= SMALL_FILE_BYTES}
        return names | {self._work_file}

    def _included(self) -> Iterator[str]:
        for pattern in self._include:
            matches = [match for base in (self._found.folder, self._root) for match in _glob(base, pattern)]
            inside = [name for match in matches if (name := self._name_of(match)) is not None]
            if not inside:
                self._warnings.append(f"--include {pattern!r} names no file below {self._root}.")
            yield from inside

    def _name_of(self, path: Path) -> str | None:
        name = _posix(os.path.relpath(path, self._root))
        return None if name == ".." or name.startswith("../") else name

    def _named(self, closure: Closure) -> list[str]:
        """Files below the root that the code names, hidden ones left out."""
        names = []
        for text in closure.named:
            name = self._name_of(self._found.folder / text)
            if name is not None and name != "." and not is_hidden(name) and _is_file(self._root / name):
                names.append(name)
        return sorted(names)

    def _judged(self, candidates: Iterable[str], demanded: set[str]) -> tuple[PlannedFile, ...]:
        taken = []
        for name in sorted(demanded.union(candidates)):
            file = self._judge(name)
            if file is not None:
                taken.append(file)
        for why, names in self._left_behind.items():
            self._warnings.append(f"Left out {why}: {_listed(names)}.")
        return tuple(taken)

    def _judge(self, name: str) -> PlannedFile | None:
        """The file as it goes into the bundle, or None with the reason noted."""
        if name != self._work_file and (self._excluded.ignores_file(name) or self._stays_behind(name)):
            return None
        try:
            source = self._place_of(name)
            status = source.lstat() if source is not None else None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, RuntimeError):
            self._leave("what could not be read", name)
            return None
        if source is None or status is None or not stat.S_ISREG(status.st_mode):
            self._leave("links to folders or outside, and what is not a regular file", name)
        elif name != self._work_file and holds_private_key(source, status.st_size):
            self._leave("files that hold a private key", name)
        else:
            return PlannedFile(name, source, status.st_size, bool(status.st_mode & 0o100))
        return None

    def _place_of(self, name: str) -> Path | None:
        """Where a file lies with all links followed; None when that is outside the root, or a secret."""
        parent = str(Path(name).parent)
        if parent not in self._real_folders:
            self._real_folders[parent] = (self._root / parent).resolve(strict=True)
        source = self._real_folders[parent] / Path(name).name
        if source.is_symlink():
            source = source.resolve(strict=True)
        elif self._real_folders[parent] == self._root / parent:
            return source
        inside = self._name_of(source)
        allowed = name == self._work_file or (inside is not None and not self._stays_behind(inside))
        return source if allowed else None

    def _stays_behind(self, name: str) -> bool:
        if why := no_name(name):
            self._leave(why, name.encode("utf-8", "backslashreplace").decode())
            return True
        if self._state not in {None, "."} and f"{name}/".startswith(f"{self._state}/"):
            self._leave("Atelier's own state", name)
            return True
        if is_credential(name):
            self._leave("files that are named like credentials", name)
            return True
        if is_executed_copy(name):
            return True
        if is_hidden(name):
            if is_worth_a_word(name):
                self._leave("hidden files", name)
            return True
        return False

    def _leave(self, why: str, name: str) -> None:
        self._left_behind.setdefault(why, []).append(name)

    def _warn(self, closure: Closure, taken: set[str]) -> None:
        home = str(Path.home())
        absolute = sorted(text for text in closure.named if text.startswith(("~/", home + "/")) and "\n" not in text)
        if absolute:
            self._warnings.append(
                f"The code names paths in your home, which a run may not see: {_listed(absolute)}. "
                "Use names relative to the work, or a data root."
            )
        missing = [name for name in self._named(closure) if name not in taken]
        if missing:
            self._warnings.append(
                f"The code names files that do not go along: {_listed(missing)}. Give --include for what the run needs."
            )
        if closure.outside:
            self._warnings.append(
                f"The code imports from outside {self._root}: {_listed(sorted(closure.outside))}. "
                "These modules do not go along."
            )
        if closure.unreadable:
            self._warnings.append(f"Modules that are no valid Python: {_listed(sorted(closure.unreadable))}.")


def _posix(name: str) -> str:
    return name.replace(os.sep, "/")


def _root_of(found: FoundWork, git: GitState | None) -> Path:
    if git is not None and found.folder.is_relative_to(git.top):
        return git.top
    return found.folder


def _is_too_broad(root: Path) -> bool:
    """Whether "all below it" would be somebody's whole home, everybody's, or the system's."""
    homes = {Path.home().resolve(), Path.home()}
    scratch = {Path(name).resolve() for name in ("/tmp", "/var/tmp", tempfile.gettempdir())}
    return root in scratch or any(home.is_relative_to(root) for home in homes)


def _walk(root: Path) -> Iterator[str]:
    """Files below a folder that no rule leaves out, links among them; ends soon after `MAX_FILES`."""
    rules = IgnoreRules(root)
    count = 0
    state = {atelier_home(), atelier_home().resolve()}
    for folder, folders, files in os.walk(root, followlinks=False):
        base = _posix(os.path.relpath(folder, root))
        here = "" if base == "." else f"{base}/"
        kept = []
        for name in sorted(folders):
            path = Path(folder, name)
            if path.is_symlink():
                files.append(name)
            elif not (
                name.startswith(".")
                or path in state
                or is_cache_folder(path)
                or rules.ignores(here + name, is_folder=True)
            ):
                kept.append(name)
        folders[:] = kept
        for name in files:
            if not name.endswith((".pyc", ".pyo", "~")) and not rules.ignores(here + name):
                yield here + name
                count += 1
        if count > MAX_FILES:
            return


def _glob(base: Path, pattern: str) -> list[Path]:
    """Regular files (and links) that a pattern names below a folder; a folder's are all below it that are no caches."""
    tail = pattern.rstrip("/")
    if not tail or posixpath.isabs(tail):
        matches = [Path(tail)] if tail else []
    else:
        matches = [base / tail] if (base / tail).exists() else sorted(base.glob(tail))
    found: list[Path] = []
    for match in matches:
        inside = [match / name for name in _walk(match)] if match.is_dir() else [match] if match.exists() else []
        found += inside
    return found


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _listed(names: Iterable[str]) -> str:
    every = [ascii(name)[1:-1] if "\n" in name else name for name in names]
    shown = ", ".join(every[:_SHOWN])
    return shown if len(every) <= _SHOWN else f"{shown} and {len(every) - _SHOWN} more"


def _too_large(files: Sequence[PlannedFile], size_bytes: int, limit_bytes: int) -> RefusedInput:
    biggest = sorted(files, key=lambda file: (-file.size_bytes, file.path))[:_SHOWN]
    words = ", ".join(f"{file.path} ({format_bytes(file.size_bytes)})" for file in biggest[:5])
    count = f"{len(files)} files, " if len(files) <= MAX_FILES else f"more than {MAX_FILES} files, "
    return RefusedInput(
        "bundle_too_large",
        f"The code is too large to send: {count}{format_bytes(size_bytes)} of at most {format_bytes(limit_bytes)}. "
        f"Biggest: {words}.",
        hint=f"Put what the run does not need into .atelierignore, as {biggest[0].path}; "
        "large data belongs into a data root.",
        detail={"biggest": [[file.path, file.size_bytes] for file in biggest], "size_bytes": size_bytes,
                "limit_bytes": limit_bytes, "files": len(files)},
    )  # fmt: skip
