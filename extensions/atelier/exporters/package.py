"""A model package: a folder with ``model.json``, a model card, the formats' files and a manifest; no pickle."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO

from atelier.errors import RefusedInput
from atelier.exporters.card import ModelCard, read_card
from atelier.exporters.card_text import readme
from atelier.exporters.onnx_parts import external_files

CARD_NAME = "model.json"
MANIFEST_NAME = "MANIFEST.sha256"
README_NAME = "README.md"

_PICKLE_SUFFIXES = {".pkl", ".pickle", ".pt", ".pth", ".joblib", ".dill", ".ckpt", ".npy", ".bin"}
_PICKLE_START = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def package_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """All files below a package, as (POSIX path, file), sorted; a link or a device among them is refused."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise RefusedInput("package_changed", f"{path.name!r} is not a plain file.", hint="Export the model again.")
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path


def seal(folder: Path, card: ModelCard) -> None:
    """Write ``model.json``, ``README.md`` and at last the manifest over all files of the folder.

    Raises
    ------
    RefusedInput
        ``pickle_in_package``: an exporter left a pickle.
    """
    refuse_pickles(folder)
    for _, path in package_files(folder):
        path.chmod(0o644)
    text = json.dumps(card.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / CARD_NAME).write_text(text + "\n", encoding="utf-8")
    (folder / README_NAME).write_text(readme(card), encoding="utf-8")
    lines = [f"{sha256(path)}  {name}\n" for name, path in package_files(folder) if name != MANIFEST_NAME]
    (folder / MANIFEST_NAME).write_text("".join(lines), encoding="utf-8")


def check_package(folder: Path) -> ModelCard:
    """The card of a package whose every file is what the manifest says, with nothing missing and nothing besides.

    Raises
    ------
    RefusedInput
        ``not_a_package`` · ``package_incomplete`` (the weights beside an ONNX file, say) · ``package_changed`` ·
        ``pickle_in_package``
    """
    if not (folder / MANIFEST_NAME).is_file() or not (folder / CARD_NAME).is_file():
        raise RefusedInput(
            "not_a_package", f"{folder} is no model package.", hint=f"One has {CARD_NAME} and {MANIFEST_NAME}."
        )
    wanted = _read_manifest(folder / MANIFEST_NAME)
    found = {name: path for name, path in package_files(folder) if name != MANIFEST_NAME}
    missing = sorted({*wanted, *_onnx_parts(found)} - set(found))
    if missing:
        raise RefusedInput(
            "package_incomplete",
            f"The package lacks {missing[0]!r}.",
            hint="Copy the whole folder of a package, not single files of it.",
            detail={"missing": missing},
        )
    changed = sorted(name for name, path in found.items() if sha256(path) != wanted.get(name))
    if changed:
        raise RefusedInput(
            "package_changed",
            f"{changed[0]!r} is not the file that was verified.",
            hint="Export the model again; a package is never edited.",
            detail={"changed": changed},
        )
    refuse_pickles(folder)
    return read_card(folder / CARD_NAME)


def refuse_pickles(folder: Path) -> None:
    """Refuse a folder that holds a pickle, by name, by first bytes, or inside a zip archive such as ``.pt2``."""
    for name, path in package_files(folder):
        with path.open("rb") as stream:
            refuse_pickle(name, stream)


def refuse_pickle(name: str, stream: IO[bytes]) -> None:
    """The same for one file of a package, read from its begin."""
    start, suffix = stream.read(2), PurePosixPath(name).suffix
    bad = name if suffix in _PICKLE_SUFFIXES or start in _PICKLE_START else _pickle_in_zip(name, start, stream)
    if bad:
        raise RefusedInput(
            "pickle_in_package",
            f"{bad!r} in the package is a pickle, which runs code when it is loaded.",
            hint="Export 'onnx', 'pt2', 'savedmodel' or 'safetensors'.",
        )


def _pickle_in_zip(name: str, start: bytes, stream: IO[bytes]) -> str | None:
    if start != b"PK":
        return None
    try:
        with zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError) as problem:
        raise RefusedInput(
            "package_changed", f"{name!r} begins as a zip archive, and is none: {problem}.", hint="Export it again."
        ) from problem
    for member in members:
        if member.file_size and PurePosixPath(member.filename).suffix in _PICKLE_SUFFIXES:
            return f"{PurePosixPath(name).name}/{member.filename}"
    return None


def _onnx_parts(found: Mapping[str, Path]) -> set[str]:
    models = {PurePosixPath(name): path for name, path in found.items() if name.endswith(".onnx")}
    return {str(name.parent / part) for name, path in models.items() for part in external_files(path)}


def _read_manifest(path: Path) -> dict[str, str]:
    pairs = (line.split("  ", 1) for line in path.read_text(encoding="utf-8").splitlines() if line)
    return {pair[1]: pair[0] for pair in pairs if len(pair) == 2}


def sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
