"""What never goes into a bundle (hidden files, credentials, caches), and what ignore files say."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from atelier.bundle.ignorefile import IgnoreFile
from atelier.records import RUN_ID

IGNORE_FILES = (".gitignore", ".atelierignore")

CACHE_FOLDERS = frozenset({"__pycache__", "node_modules", "venv", "env", "__pypackages__", "lost+found"})
"""Folders that are made again by tools; ``venv`` and ``env`` only when they are Python environments."""

_CREDENTIAL_NAMES = re.compile(
    r"""id_(?:rsa|dsa|ecdsa|ed25519)(?:\..*)?(?<!\.pub)
    | .*\.(?:pem|key|p12|pfx|jks|keystore|kdbx|ppk|token)
    | (?:.*[_-])?(?:token|tokens|password|passwords|passwd|credentials?)(?:\.(?:txt|json|ya?ml|toml|ini|csv))?
    | (?:.*[_-])?secrets?\.(?:txt|json|ya?ml|toml|ini|env)
    | .*cookie_secret | htpasswd | kaggle\.json | (?:client_secret|service[_-]account).*\.json
    | application_default_.*\.json
    """,
    re.VERBOSE | re.IGNORECASE,
)
_HARMLESS_HIDDEN = re.compile(
    r"\.(?:git.*|github|vscode|idea|editorconfig|pre-commit.*|coverage.*|ruff.*|flake8|pylintrc|mypy.*|pytest_cache|tox|ipynb_checkpoints"
    r"|atelier.*|ci|circleci|readthedocs.*|docker.*|travis.*|venv|DS_Store|cache|python-version|nox|hypothesis|dvc.*)"
)
_EXECUTED_COPY = re.compile(rf"\.{RUN_ID.pattern}\.ipynb$")
_PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")
_CODE_SUFFIXES = frozenset({".py", ".ipynb", ".md", ".rst"})
_LOOKED_INTO_BYTES = 32 * 1024


def is_hidden(path: str) -> bool:
    """Whether a name in a relative path begins with a dot."""
    return any(part.startswith(".") for part in path.split("/"))


def is_executed_copy(path: str) -> bool:
    """Whether a name is that of an executed notebook that was opened from a run, ``train.r-abcdefgh27.ipynb``."""
    return _EXECUTED_COPY.search(path) is not None


def is_credential(path: str) -> bool:
    """Whether a file's name is one that keys, tokens or passwords are kept under."""
    return _CREDENTIAL_NAMES.fullmatch(path.rpartition("/")[2]) is not None


def is_worth_a_word(path: str) -> bool:
    """Whether a user should hear that this hidden file stays behind; the usual files of tools are not."""
    first = next((part for part in path.split("/") if part.startswith(".")), "")
    return _HARMLESS_HIDDEN.fullmatch(first) is None


def holds_private_key(source: Path, size_bytes: int) -> bool:
    """Whether a small file that is not code holds a private key in PEM form."""
    if source.suffix in _CODE_SUFFIXES or not 64 <= size_bytes <= _LOOKED_INTO_BYTES:
        return False
    try:
        return _PRIVATE_KEY.search(source.read_bytes()) is not None
    except OSError:
        return False


def is_cache_folder(folder: Path) -> bool:
    """Whether a folder is a cache, a Python environment, or the home of a run service."""
    if (folder / "run" / "service.json").exists():
        return True
    if folder.name in {"venv", "env"}:
        return (folder / "pyvenv.cfg").exists()
    return folder.name in CACHE_FOLDERS or folder.name.endswith(".egg-info") or (folder / "pyvenv.cfg").exists()


class IgnoreRules:
    """The ignore files of a folder and its subfolders; the deepest file that speaks of a path decides, as in git."""

    def __init__(self, root: Path, names: Iterable[str] = IGNORE_FILES) -> None:
        self._root = root
        self._names = tuple(names)
        self._files: dict[str, IgnoreFile] = {}

    def ignores(self, path: str, *, is_folder: bool = False) -> bool:
        """Whether a path below the root is ignored by itself (its folders are asked separately)."""
        folder = PurePosixPath(path).parent
        for base in (folder, *folder.parents):
            below = path if str(base) == "." else path[len(str(base)) + 1 :]
            said = self._file(str(base)).says(below, is_folder=is_folder)
            if said is not None:
                return said
        return False

    def ignores_below(self, path: str) -> bool:
        """Whether a file is ignored by itself or through one of its folders."""
        folders = [str(folder) for folder in PurePosixPath(path).parents if str(folder) != "."]
        return any(self.ignores(folder, is_folder=True) for folder in reversed(folders)) or self.ignores(path)

    def _file(self, folder: str) -> IgnoreFile:
        if folder not in self._files:
            self._files[folder] = IgnoreFile(
                line for name in self._names for line in _lines(self._root / folder / name)
            )
        return self._files[folder]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return []
