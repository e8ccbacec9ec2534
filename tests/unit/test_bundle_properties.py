"""Odd trees come out of a bundle as they went in, or it is said what stays behind; and no archive writes elsewhere."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from atelier.bundle.archive import MANIFEST, PlannedFile, bundle_reader, write_archive
from atelier.bundle.snapshot import plan_bundle, read_manifest, unpack_bundle, write_bundle
from atelier.errors import AtelierError, RefusedInput
from atelier.works.finding import find_work
from tests.fuzzing import examples

LIMIT = 50 << 20
NOT_UTF8 = os.fsdecode(b"caf\xe9")
PLAIN = [
    "a",
    "A",
    "b.txt",
    "ü",
    "e\u0301",
    "\u00e9",
    "🙂.py",
    "new\nline",
    "tab\t",
    " ",
    "-rf",
    "~",
    "#x",
    "!x",
    "*",
    "[x]",
    "a\\b",
    "'\"",
    "%2e%2e",
    "...x"[3:],
    "x" * 200,
    "con",
    "\u202etxt.exe",
    "\x1b[31m",
]
STAYS = [".hidden", "...", "id_rsa", "aws.token", "__pycache__", "node_modules", "old.pyc", "old~", NOT_UTF8]
NAMES = st.sampled_from(PLAIN) | st.sampled_from(PLAIN + STAYS)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


@dataclass(frozen=True)
class Odd:
    """A file of a tree: its bytes, or where it links to; ``hole`` bytes of nothing follow."""

    data: bytes = b""
    mode: int = 0o644
    hole: int = 0
    link: str | None = None


FILES = st.builds(
    Odd,
    data=st.binary(max_size=30),
    mode=st.sampled_from([0o644, 0o755, 0o600, 0o444, 0o711]),
    hole=st.sampled_from([0, 0, 0, 200_000]),
)
LINKS = st.builds(Odd, link=st.sampled_from(["a", "../a", ".", "..", "/etc/hostname", "nowhere", "b.txt", "./id_rsa"]))
TREES = st.dictionaries(PATHS, FILES | FILES | LINKS, max_size=8)


@contextmanager
def grown(tree: Mapping[str, Odd]) -> Iterator[tuple[Path, dict[str, Odd]]]:
    """A folder with what of a tree can be there together, and a work beside it."""
    folder = Path(tempfile.mkdtemp(prefix="atl-", dir="/dev/shm"))
    root = folder / "root"
    root.mkdir()
    made = {}
    try:
        for name, odd in {"train.py": Odd(b"import a\n"), **tree}.items():
            try:
                plant(root / name, odd)
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                continue  # another one is in its way
            made[name] = odd
        yield root, {name: odd for name, odd in made.items() if is_below(root, name)}
    finally:
        shutil.rmtree(folder)


def plant(path: Path, odd: Odd) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if odd.link is not None:
        path.symlink_to(odd.link)
        return
    with open(path, "xb") as file:
        file.write(odd.data)
        file.truncate(len(odd.data) + odd.hole)
    path.chmod(odd.mode)


def is_below(root: Path, name: str) -> bool:
    """Whether no folder on the way is a link, through which it was planted elsewhere."""
    return not any((root / folder).is_symlink() for folder in Path(name).parents)


def stays(name: str) -> bool:
    """Whether a name says that a file stays behind: hidden, a credential's, a cache's, or no UTF-8."""
    parts = name.split("/")
    if NOT_UTF8 in parts or any(part.startswith(".") for part in parts):
        return True
    if {"__pycache__", "node_modules"} & set(parts[:-1]):
        return True
    return parts[-1] in {"id_rsa", "aws.token"} or parts[-1].endswith((".pyc", "~"))


def content(path: Path) -> tuple[bytes, bool]:
    return path.read_bytes(), bool(path.stat().st_mode & 0o100)


@given(TREES)
@examples(100)
@example({"a": Odd(b"1"), "A": Odd(b"2"), "e\u0301": Odd(b"3"), "\u00e9": Odd(b"4")})
@example({"b.txt": Odd(b"x"), "a": Odd(link="b.txt"), "A": Odd(link="../root/b.txt")})
@example({"/".join(["d" * 200] * 15): Odd(b"deep")})
@example({"a": Odd(link="a")})
@example({"a/b.txt": Odd(b"x"), "a/a": Odd(link="../a/a")})
@example({NOT_UTF8: Odd(b"x"), f"a/{NOT_UTF8}/b.txt": Odd(b"x")})
def test_a_tree_comes_out_as_it_went_in(tree: dict[str, Odd]) -> None:
    with grown(tree) as (root, made):
        plan = plan_bundle(find_work("train.py", root), limit_bytes=LIMIT)
        taken = {file.path for file in plan.files}
        plain = {name for name, odd in made.items() if odd.link is None}
        assert {name for name in plain if not stays(name)} <= taken, "a file was forgotten"
        assert not {name for name in taken if stays(name)}, "what stays behind went along"
        for name in made.keys() - plain:
            target = Path(os.path.realpath(root / name))
            inside = target.is_relative_to(root.resolve()) and target.is_file() and not stays(name)
            wanted = inside and not stays(target.relative_to(root.resolve()).as_posix())
            assert (name in taken) == wanted, f"{name} links to {target}"
        assert any(map(is_told, plain)) <= ("not UTF-8" in "\n".join(plan.warnings))
        bundle, again = root.parent / "one.tar.zst", root.parent / "two.tar.zst"
        digest = write_bundle(plan, bundle)
        for name in plain:
            os.utime(root / name, (1, 1))
        assert write_bundle(plan_bundle(find_work("train.py", root), limit_bytes=LIMIT), again) == digest
        assert digest == hashlib.sha256(bundle.read_bytes()).hexdigest()
        out = root.parent / "out"
        assert set(unpack_bundle(bundle, out, limit_bytes=LIMIT)) == taken
        for name in taken:
            assert content(out / name) == content(root / name), name
            assert not (out / name).is_symlink()
        there = {path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()}
        assert there == taken
        assert {entry["path"] for entry in read_manifest(bundle)} == taken


def test_names_that_no_file_can_have_are_only_not_there(tmp_path: Path) -> None:
    code = f"import {'m' * 300}\nfrom {'p' * 300}.q import *\nopen('{'n' * 300}.py')\nopen('{'d/' * 2000}x.ipynb')\n"
    (tmp_path / "train.py").write_text(code)
    plan = plan_bundle(find_work("train.py", tmp_path), limit_bytes=LIMIT)
    assert [file.path for file in plan.files] == ["train.py"]
    (tmp_path / "loop").symlink_to("loop")
    for named in (
        f"{'m' * 300}:main",
        "m" * 300,
        f"{'m' * 300}.py",
        "loop",
        "loop.main",
        "loop/train.py",
        "~nobody/x.py",
    ):
        with pytest.raises(RefusedInput) as caught:
            find_work(named, tmp_path)
        assert caught.value.code == "work_not_found", named


def is_told(name: str) -> bool:
    """Whether a file whose name is no UTF-8 is looked at, and so said to stay: no cache and nothing hidden is."""
    parts = name.split("/")
    skipped = any(part.startswith(".") or part in {"__pycache__", "node_modules"} for part in parts[:-1])
    return NOT_UTF8 in parts and not skipped and not name.endswith((".pyc", "~"))


# -- archives of others -------------------------------------------------------------------------------------------
HOSTILE = [
    "../x",
    "/etc/x",
    "a/../../x",
    "a/./b",
    "a//b",
    "a/",
    ".",
    "..",
    "",
    "a\0b",
    "y" * 300,
    "/".join(["z" * 200] * 30),
    "a",
    "a/b",
    "a/b/c",
    MANIFEST,
    "\udce9",
    "ü",
]
KINDS = [tarfile.REGTYPE, tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE,
         tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.GNUTYPE_SPARSE, b"V"]  # fmt: skip
MEMBERS = st.lists(
    st.tuples(
        st.sampled_from(HOSTILE), st.binary(max_size=9), st.sampled_from(KINDS), st.sampled_from(["", "../../x", "a"])
    ),
    max_size=4,
)


def packed(members: list[tuple[str, bytes, bytes, str]], *, form: int, is_listed: bool) -> bytes:
    """A bundle as somebody else's tool could make it, with a manifest that tells of all its members."""
    listed = [
        {"path": name, "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "mode": 0o4777}
        for name, data, _, _ in members
    ]
    manifest = json.dumps({"version": 1, "files": listed if is_listed else []}).encode()
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form, errors="surrogateescape") as tar:
        for name, data, kind, link in [(MANIFEST, manifest, tarfile.REGTYPE, ""), *members]:
            header = tarfile.TarInfo(name)
            header.type, header.linkname, header.mode, header.size = kind, link, 0o4777, len(data)
            tar.addfile(header, io.BytesIO(data))
    return made.getvalue()


def unpacks_safely(data: bytes) -> bool:
    """Whether a bundle is taken; it is that, or refused, and whatever it is nothing is written elsewhere."""
    folder = Path(tempfile.mkdtemp(prefix="atl-", dir="/dev/shm"))
    try:
        (folder / "x").write_bytes(b"a canary")
        bundle, out = folder / "bundle.tar.zst", folder / "in/out"
        bundle.write_bytes(data)
        try:
            unpack_bundle(bundle, out, limit_bytes=1 << 20)
        except RefusedInput as problem:
            refusal = problem
        else:
            refusal = None
        assert {path.name for path in folder.iterdir()} <= {"x", "bundle.tar.zst", "in"}
        assert {path.name for path in (folder / "in").iterdir()} <= {"out"}
        assert (folder / "x").read_bytes() == b"a canary"
        modes = [path.lstat().st_mode for path in out.rglob("*")]
        assert all(stat.S_ISREG(mode) or stat.S_ISDIR(mode) for mode in modes)
        assert not any(mode & (stat.S_ISUID | stat.S_ISGID) for mode in modes)
        assert refusal is None or refusal.code == "bad_bundle", refusal
        with pytest.raises((FileNotFoundError, AtelierError)):
            bundle_reader(bundle, limit_bytes=1 << 20)("not there.py")
        return refusal is None
    finally:
        shutil.rmtree(folder)


@given(MEMBERS, st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]), st.booleans())
@examples(150)
@example([("/".join(["z" * 200] * 30), b"", tarfile.REGTYPE, "")], tarfile.PAX_FORMAT, True)
@example([("ü/a", b"x", tarfile.REGTYPE, "")], tarfile.PAX_FORMAT, True)
@example([("a", b"", tarfile.REGTYPE, ""), ("a/b", b"", tarfile.REGTYPE, "")], tarfile.PAX_FORMAT, True)
def test_no_archive_writes_elsewhere(members: list[tuple[str, bytes, bytes, str]], form: int, is_listed: bool) -> None:
    try:
        archive = packed(members, form=form, is_listed=is_listed)
    except (ValueError, UnicodeError):
        return  # tarfile itself can't write it
    unpacks_safely(zstandard.compress(archive))


def test_a_plain_archive_of_others_is_taken() -> None:
    archive = packed([("ü/a", b"x", tarfile.REGTYPE, "")], form=tarfile.PAX_FORMAT, is_listed=True)
    assert unpacks_safely(zstandard.compress(archive))


@given(st.data())
@examples(200)
def test_no_damage_is_taken_for_a_bundle(data: st.DataObject) -> None:
    """Some bytes of a good one are others, or missing: in what is packed, or in the archive."""
    with grown({"a": Odd(b"some words"), "b.txt": Odd(b"x" * 2000)}) as (root, made):
        files = [PlannedFile(name, root / name, len(odd.data)) for name, odd in made.items()]
        write_archive(files, root.parent / "bundle")
        whole = (root.parent / "bundle").read_bytes()
    is_inner = data.draw(st.booleans())
    raw = bytearray(zstandard.ZstdDecompressor().stream_reader(whole).read() if is_inner else whole)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, max(0, len(raw) - 1)))
        raw[place : place + data.draw(st.integers(0, 600))] = data.draw(st.binary(max_size=3))
    damaged = zstandard.compress(bytes(raw)) if is_inner else bytes(raw)
    unpacks_safely(damaged)
