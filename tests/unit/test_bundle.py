"""Which files go into a bundle, that the same tree gives the same bytes, and that unpacking trusts nobody."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atelier.bundle.archive import MANIFEST
from atelier.bundle.ignorefile import IgnoreFile
from atelier.bundle.snapshot import (
    BundlePlan,
    PlannedFile,
    bundle_reader,
    plan_bundle,
    read_manifest,
    read_member,
    unpack_bundle,
    write_bundle,
)
from atelier.errors import AtelierError, Conflict, RefusedInput
from atelier.records import Work, WorkKind
from atelier.works.finding import find_work

LIMIT = 10**7


def tree(folder: Path, *names: str, **contents: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(contents.get(name, f"# {name}\n"))


def planned(folder: Path, work: str = "train.py", **options: object) -> BundlePlan:
    return plan_bundle(find_work(work, folder), **{"limit_bytes": LIMIT, **options})  # type: ignore[arg-type]


def names(plan: BundlePlan) -> set[str]:
    return {file.path for file in plan.files}


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, timeout=30)


class TestPlanOfAFolder:
    def test_everything_below_but_ignored_hidden_and_cached(self, tmp_path: Path) -> None:
        tree(
            tmp_path, "train.py", "helper.py", "conf/a.yaml", "big.bin", "logs/x.log", "logs/keep.log", "own/x", "own/y"
        )
        tree(tmp_path, ".env", ".ssh/id_rsa", "__pycache__/a.pyc", "node_modules/a.js", "v/pyvenv.cfg", "v/lib.py")
        tree(tmp_path, ".ipynb_checkpoints/train.py", "x.egg-info/PKG", "stale.pyc", "a.r-abcdefgh27.ipynb")
        (tmp_path / ".gitignore").write_text("*.bin\nlogs/*\n!keep.log\n")
        (tmp_path / "own/.atelierignore").write_text("/y\n")
        plan = planned(tmp_path)
        assert names(plan) == {"train.py", "helper.py", "conf/a.yaml", "logs/keep.log", "own/x"}
        assert plan.root == tmp_path
        assert plan.work == Work(kind=WorkKind.SCRIPT, target="train.py", folder=".")
        assert plan.size_bytes == sum(file.size_bytes for file in plan.files) > 0
        assert (plan.git_revision, plan.git_dirty) == (None, False)

    def test_imports_and_requirements_go_along_even_when_ignored(self, tmp_path: Path) -> None:
        tree(tmp_path, "local.py", "requirements.txt")
        (tmp_path / "train.py").write_text("import local")
        (tmp_path / ".gitignore").write_text("*\n")
        assert names(planned(tmp_path)) == {"train.py", "local.py", "requirements.txt"}

    @pytest.mark.parametrize("tracked", [False, True])
    def test_never_the_state_of_atelier(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracked: bool) -> None:
        state = ("secrets/user", "blobs/ab/x", "envs/a/lib/y.py", "db/service.db")
        tree(tmp_path, "train.py", "state.txt", *(f"state/{name}" for name in state))
        (tmp_path / "linked.txt").symlink_to(tmp_path / "state/blobs/ab/x")
        if tracked:
            git(tmp_path, "init")
            git(tmp_path, "add", ".")
        monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "state"))
        assert names(planned(tmp_path)) == {"train.py", "state.txt"}
        asked = planned(tmp_path, include=["state/blobs", "state/db/service.db"])
        assert names(asked) == {"train.py", "state.txt"}
        assert "Left out Atelier's own state: state/" in "\n".join(asked.warnings)

    def test_not_the_state_of_another_service(self, tmp_path: Path) -> None:
        tree(tmp_path, "train.py", "other/run/service.json", "other/blobs/x")
        assert names(planned(tmp_path)) == {"train.py"}

    def test_a_work_below_the_state_is_taken_like_any_other(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Homes of further users lie there."""
        monkeypatch.setenv("ATELIER_HOME", str(tmp_path))
        tree(tmp_path / "users/bob", "train.py", "beside.py")
        assert names(planned(tmp_path / "users/bob")) == {"train.py", "beside.py"}

    def test_include_and_exclude(self, tmp_path: Path) -> None:
        tree(tmp_path, "train.py", "a.py", "data/x.csv", "data/deep/y.csv", "data/z.txt", "out/o.bin")
        (tmp_path / ".gitignore").write_text("data/\nout/\n")
        assert names(planned(tmp_path)) == {"train.py", "a.py"}
        assert names(planned(tmp_path, include=["data"])) >= {"data/x.csv", "data/deep/y.csv", "data/z.txt"}
        assert names(planned(tmp_path, include=["data/**/*.csv"], exclude=["a.py", "deep"])) == {
            "train.py",
            "data/x.csv",
        }
        plan = planned(tmp_path, include=["nothing*"])
        assert any("nothing*" in text for text in plan.warnings)

    def test_include_never_leaves_the_root_nor_takes_secrets(self, tmp_path: Path) -> None:
        tree(tmp_path, "w/train.py", "w/.env", "w/key.pem", "outside.txt")
        plan = planned(tmp_path / "w", include=["../outside.txt", str(tmp_path / "outside.txt"), ".env", "key.pem"])
        assert names(plan) == {"train.py"}
        assert any(".env" in text for text in plan.warnings)
        assert any("key.pem" in text for text in plan.warnings)

    def test_credentials_stay_behind_with_a_word(self, tmp_path: Path) -> None:
        secret = (
            "id_rsa",
            "server.pem",
            "api_token.txt",
            "kaggle.json",
            "sub/credentials.json",
            "secrets.yaml",
            "x.key",
        )
        plain = ("tokenizer.json", "tokens.py", "id_rsa.pub", "special_tokens_map.json", "keys.py", "monkey.txt")
        tree(tmp_path, "train.py", *secret, *plain)
        (tmp_path / "deploy").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n" + "x" * 80)
        plan = planned(tmp_path)
        assert names(plan) == {"train.py", *plain}
        for name in (*secret, "deploy"):
            assert any(name in text for text in plan.warnings), name

    def test_links_and_odd_files(self, tmp_path: Path) -> None:
        root = tmp_path / "w"
        tree(root, "train.py", "real.txt", "folder/a.txt", ".env")
        tree(tmp_path, "outside.txt")
        (root / "inside").symlink_to("real.txt")
        (root / "outside").symlink_to("../outside.txt")
        (root / "linked").symlink_to("folder")
        (root / "dead").symlink_to("nowhere")
        (root / "loop").symlink_to("loop")
        (root / "innocent").symlink_to(".env")
        os.mkfifo(root / "pipe")
        plan = planned(root)
        assert names(plan) == {"train.py", "real.txt", "folder/a.txt", "inside"}
        for name in ("outside", "linked", "loop", "innocent", "pipe"):
            assert any(name in text for text in plan.warnings), name
        write_bundle(plan, tmp_path / "b")
        unpack_bundle(tmp_path / "b", tmp_path / "out", limit_bytes=LIMIT)
        assert not (tmp_path / "out/inside").is_symlink()
        assert (tmp_path / "out/inside").read_text() == "# real.txt\n"

    def test_package_behind_a_linked_folder_outside(self, tmp_path: Path) -> None:
        tree(tmp_path, "elsewhere/__init__.py")
        (tmp_path / "w").mkdir()
        (tmp_path / "w/train.py").write_text("import pkg")
        (tmp_path / "w/pkg").symlink_to("../elsewhere")
        plan = planned(tmp_path / "w")
        assert names(plan) == {"train.py"}
        assert any("pkg" in text for text in plan.warnings)

    def test_name_that_is_not_utf8_stays_behind_with_a_word(self, tmp_path: Path) -> None:
        tree(tmp_path, "train.py")
        (tmp_path / os.fsdecode(b"bad\xff.txt")).write_text("x")
        plan = planned(tmp_path)
        assert names(plan) == {"train.py"}
        assert any("UTF-8" in text for text in plan.warnings)
        "".join(plan.warnings).encode()

    def test_too_large_names_the_biggest(self, tmp_path: Path) -> None:
        tree(tmp_path, "train.py")
        (tmp_path / "data.bin").write_bytes(b"0" * 5000)
        (tmp_path / "more.bin").write_bytes(b"0" * 6000)
        with pytest.raises(RefusedInput) as caught:
            planned(tmp_path, limit_bytes=10_000)
        assert caught.value.code == "bundle_too_large"
        assert caught.value.detail["biggest"][:2] == [["more.bin", 6000], ["data.bin", 5000]]
        assert "more.bin" in caught.value.message
        assert ".atelierignore" in caught.value.hint
        (tmp_path / ".atelierignore").write_text("*.bin")
        assert names(planned(tmp_path, limit_bytes=10_000)) == {"train.py"}

    def test_says_what_the_code_names_and_does_not_get(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        root = tmp_path / "w"
        tree(root, "table.csv")
        (root / "train.py").write_text(f"open('table.csv'); open({str(tmp_path / 'x/data.bin')!r}); open('~/y.txt')")
        (root / ".gitignore").write_text("*.csv")
        words = "\n".join(planned(root).warnings)
        assert "table.csv" in words
        assert "data.bin" in words
        assert "~/y.txt" in words


class TestPlanOfARepository:
    def test_what_git_tracks_from_the_top(self, tmp_path: Path) -> None:
        tree(
            tmp_path,
            "src/lib.py",
            "nb/train.py",
            "nb/helper.py",
            "notes.txt",
            "README.md",
            ".github/ci.yml",
            ".env",
            "gone.py",
        )
        git(tmp_path, "init", "-q")
        git(tmp_path, "add", "src", "nb/train.py", "README.md", ".github", ".env", "gone.py")
        git(tmp_path, "commit", "-qm", "x")
        (tmp_path / "gone.py").unlink()
        (tmp_path / "nb/train.py").write_text("import helper")
        plan = planned(tmp_path / "nb")
        assert names(plan) == {"src/lib.py", "nb/train.py", "nb/helper.py", "README.md"}
        assert plan.work == Work(kind=WorkKind.SCRIPT, target="nb/train.py", folder="nb")
        assert plan.root == tmp_path
        assert plan.git_revision is not None
        assert len(plan.git_revision) == 40
        assert plan.git_dirty
        assert any(".env" in text for text in plan.warnings)
        assert not any(".github" in text for text in plan.warnings)

    def test_atelierignore_is_stronger_than_git(self, tmp_path: Path) -> None:
        tree(tmp_path, "train.py", "data/a.csv")
        (tmp_path / ".atelierignore").write_text("data/\n")
        git(tmp_path, "init", "-q")
        git(tmp_path, "add", ".")
        assert names(planned(tmp_path)) == {"train.py"}
        assert planned(tmp_path).git_revision is None

    def test_function_in_src_brings_its_folder(self, tmp_path: Path) -> None:
        tree(tmp_path, "src/pkg/__init__.py", "src/pkg/train.py", "conf.yaml")
        git(tmp_path, "init", "-q")
        git(tmp_path, "add", ".")
        plan = planned(tmp_path, work="pkg.train:main")
        assert plan.work == Work(kind=WorkKind.FUNCTION, target="pkg.train:main", folder="src")
        assert names(plan) == {"src/pkg/__init__.py", "src/pkg/train.py", "conf.yaml"}

    def test_untracked_work_takes_its_folder(self, tmp_path: Path) -> None:
        tree(tmp_path, "a.py", "nb/train.py", "nb/untracked.py")
        git(tmp_path, "init", "-q")
        git(tmp_path, "add", "a.py")
        plan = planned(tmp_path / "nb")
        assert (plan.root, names(plan)) == (tmp_path / "nb", {"train.py", "untracked.py"})

    def test_submodules_are_left_out_with_a_word(self, tmp_path: Path) -> None:
        tree(tmp_path, "inner/x.py", "outer/train.py")
        for folder in ("inner", "outer"):
            git(tmp_path / folder, "init", "-q")
            git(tmp_path / folder, "add", ".")
            git(tmp_path / folder, "commit", "-qm", "x")
        git(
            tmp_path / "outer",
            "-c",
            "protocol.file.allow=always",
            "submodule",
            "add",
            "-q",
            str(tmp_path / "inner"),
            "sub",
        )
        plan = planned(tmp_path / "outer")
        assert names(plan) == {"train.py"}
        assert any("sub" in text for text in plan.warnings)

    def test_odd_names_in_git(self, tmp_path: Path) -> None:
        odd = ("train.py", "ü mit leer.txt", "new\nline.txt", "a'b\"c.txt", "[x]*.txt", "-rf")
        tree(tmp_path, *odd)
        git(tmp_path, "init", "-q")
        git(tmp_path, "add", "--", ".")
        assert names(planned(tmp_path)) == set(odd)
        (tmp_path / "[x]*.py").write_text("1")
        git(tmp_path, "add", "--", ".")
        assert planned(tmp_path, work="[x]*.py").git_dirty is True

    def test_without_git_on_the_path_it_is_a_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tree(tmp_path, "train.py", "b.py")
        git(tmp_path, "init", "-q")
        git(tmp_path, "add", "train.py")
        monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
        assert names(planned(tmp_path)) == {"train.py", "b.py"}


class TestPlanInTheHome:
    def test_only_the_work_what_it_imports_and_small_files_it_names(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        tree(
            tmp_path,
            "other.py",
            "mine.py",
            "letters/private.txt",
            "table.csv",
            "sub/conf.yaml",
            "requirements.txt",
            ".netrc",
        )
        (tmp_path / "big.csv").write_bytes(b"0" * (2 << 20))
        (tmp_path / "train.py").write_text(
            "import mine\nopen('table.csv'); open('big.csv'); open('sub/conf.yaml'); open('.netrc'); open('letters')"
        )
        plan = planned(tmp_path)
        assert names(plan) == {"train.py", "mine.py", "table.csv", "sub/conf.yaml", "requirements.txt"}
        assert any("big.csv" in text for text in plan.warnings)

    def test_repository_of_the_home_itself_is_no_reason_to_take_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        tree(tmp_path, "train.py", "private.txt")
        git(tmp_path, "init", "-q")
        git(tmp_path, "add", ".")
        assert names(planned(tmp_path)) == {"train.py"}

    @pytest.mark.parametrize("above", ["", "user/deep"])
    def test_folder_above_the_home_is_no_better(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, above: str
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path / above))
        tree(tmp_path, "train.py", "user/deep/private.txt")
        assert names(planned(tmp_path)) == {"train.py"}


NAME = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40).filter(
    lambda name: name not in {".", ".."} and len(name.encode()) <= 255
)
PATHS = st.lists(NAME, min_size=1, max_size=12).map("/".join)
TREES = st.dictionaries(PATHS, st.tuples(st.binary(max_size=2000), st.booleans()), max_size=8).filter(
    lambda files: not any(other.startswith(name + "/") for name in files for other in files)
)


def archived(folder: Path, files: dict[str, tuple[bytes, bool]], target: Path) -> str:
    plan = []
    for number, (path, (content, executable)) in enumerate(files.items()):
        source = folder / f"f{number}"
        source.write_bytes(content)
        plan.append(PlannedFile(path, source, len(content), executable))
    work = Work(kind=WorkKind.SCRIPT, target="x.py")
    return write_bundle(BundlePlan(folder, work, tuple(plan), 0, ()), target)


class TestArchive:
    @given(files=TREES)
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_odd_trees_come_back_whole_and_give_the_same_bytes(
        self, files: dict[str, tuple[bytes, bool]], tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        folder = tmp_path_factory.mktemp("b")
        sha256 = archived(folder, files, folder / "one")
        backwards = dict(reversed(files.items()))
        assert archived(folder, backwards, folder / "two") == sha256
        assert hashlib.sha256((folder / "one").read_bytes()).hexdigest() == sha256
        written = unpack_bundle(folder / "one", folder / "out", limit_bytes=LIMIT)
        assert sorted(written) == sorted(files)
        for path, (content, executable) in files.items():
            assert (folder / "out" / path).read_bytes() == content
            assert read_member(folder / "one", path) == content
            assert (folder / "out" / path).stat().st_mode & 0o777 == (0o755 if executable else 0o644)
        assert {entry["path"] for entry in read_manifest(folder / "one")} == set(files)

    def test_times_owners_and_umask_leave_no_trace(self, tmp_path: Path) -> None:
        tree(tmp_path / "w", "train.py", "a.sh")
        first = write_bundle(planned(tmp_path / "w"), tmp_path / "one")
        os.utime(tmp_path / "w/train.py", (1, 1))
        (tmp_path / "w/train.py").chmod(0o600)
        assert write_bundle(planned(tmp_path / "w"), tmp_path / "two") == first
        (tmp_path / "w/a.sh").chmod(0o755)
        assert write_bundle(planned(tmp_path / "w"), tmp_path / "three") != first

    def test_reader(self, tmp_path: Path) -> None:
        archived(tmp_path, {"a.py": (b"1", False), "b.bin": (b"2", False)}, tmp_path / "b")
        read = bundle_reader(tmp_path / "b")
        assert (read("a.py"), read("b.bin")) == (b"1", b"2")
        for missing in ("c", MANIFEST + "x"):
            with pytest.raises(FileNotFoundError):
                read(missing)
            with pytest.raises(FileNotFoundError):
                read_member(tmp_path / "b", missing)

    def test_reader_refuses_what_an_agent_would_refuse_for_want_of_a_manifest(self, tmp_path: Path) -> None:
        path = made(tmp_path / "b", (header("a.py", 1), b"1"))
        with pytest.raises(RefusedInput, match="no manifest"):
            bundle_reader(path)("a.py")

    @pytest.mark.parametrize("change", ["grow", "vanish", "shrink", "pipe", "link"])
    def test_file_that_changed_since_it_was_planned(self, tmp_path: Path, change: str) -> None:
        tree(tmp_path / "w", "train.py", "log.txt")
        plan = planned(tmp_path / "w")
        path = tmp_path / "w/log.txt"
        path.unlink()
        if change == "pipe":
            os.mkfifo(path)
        elif change == "link":
            path.symlink_to("/etc/passwd")
        elif change in {"grow", "shrink"}:
            path.write_text("x" * (100 if change == "grow" else 1))
        if change in {"grow", "shrink"}:
            write_bundle(plan, tmp_path / "b")  # a change before reading is just the newest state
            assert read_member(tmp_path / "b", "log.txt") == path.read_bytes()
            return
        with pytest.raises(Conflict) as caught:
            write_bundle(plan, tmp_path / "b")
        assert caught.value.code == "file_changed"
        assert not list(tmp_path.glob("b*"))

    def test_file_that_changes_while_it_is_read(self, tmp_path: Path) -> None:
        tree(tmp_path / "w", "train.py")
        path = tmp_path / "w/log.txt"
        path.write_bytes(b"0" * (40 << 20))
        plan = planned(tmp_path / "w", limit_bytes=10**8)
        ended = threading.Event()

        def keep_writing() -> None:
            number = 0
            while not ended.is_set():
                with open(path, "r+b") as file:
                    number += 1
                    file.seek(number % 1000)
                    file.write(str(number).encode())

        writer = threading.Thread(target=keep_writing)
        writer.start()
        try:
            with pytest.raises(Conflict) as caught:
                write_bundle(plan, tmp_path / "b")
        finally:
            ended.set()
            writer.join(10)
        assert caught.value.detail["path"] == "log.txt"


def made(
    path: Path,
    *members: tuple[tarfile.TarInfo, bytes],
    manifest: list[str] | None = None,
    version: int = 1,
    more: int = 0,
) -> Path:
    """A bundle as somebody else would make it; the manifest calls each file so many bytes larger than it is."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        if manifest is not None:
            contents = {header.name: content for header, content in members}
            entries = [
                {
                    "path": name,
                    "sha256": hashlib.sha256(contents.get(name, b"")).hexdigest(),
                    "size_bytes": len(contents.get(name, b"")) + more,
                }
                for name in manifest
            ]
            content = json.dumps({"version": version, "files": entries}).encode()
            tar.addfile(header(MANIFEST, len(content)), io.BytesIO(content))
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    path.write_bytes(zstandard.ZstdCompressor().compress(raw.getvalue()))
    return path


def header(name: str, size_bytes: int = 0, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size_bytes, kind, target
    return info


def raw(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


HOSTILE: dict[str, Callable[[Path], Path]] = {
    "absolute": lambda path: made(path, (header("/etc/x"), b""), manifest=["/etc/x"]),
    "parent": lambda path: made(path, (header("../x"), b""), manifest=["../x"]),
    "inner parent": lambda path: made(path, (header("a/../../x"), b""), manifest=["a/../../x"]),
    "dot": lambda path: made(path, (header("./x"), b""), manifest=["./x"]),
    "double slash": lambda path: made(path, (header("a//x"), b""), manifest=["a//x"]),
    "long part": lambda path: made(path, (header("n" * 300), b""), manifest=["n" * 300]),
    "symlink": lambda path: made(path, (header("x", 0, tarfile.SYMTYPE, "/etc"), b""), manifest=["x"]),
    "hard link": lambda path: made(path, (header("x", 0, tarfile.LNKTYPE, "y"), b""), manifest=["x"]),
    "device": lambda path: made(path, (header("x", 0, tarfile.CHRTYPE), b""), manifest=["x"]),
    "fifo": lambda path: made(path, (header("x", 0, tarfile.FIFOTYPE), b""), manifest=["x"]),
    "folder": lambda path: made(path, (header("x", 0, tarfile.DIRTYPE), b""), manifest=["x"]),
    "sparse": lambda path: made(path, (header("x", 0, tarfile.GNUTYPE_SPARSE), b""), manifest=["x"]),
    "twice": lambda path: made(path, (header("x"), b""), (header("x"), b""), manifest=["x"]),
    "file as folder": lambda path: made(path, (header("x"), b""), (header("x/y"), b""), manifest=["x", "x/y"]),
    "not in manifest": lambda path: made(path, (header("x"), b""), manifest=[]),
    "missing": lambda path: made(path, manifest=["x"]),
    "no manifest": lambda path: made(path, (header("x"), b"")),
    "another version": lambda path: made(path, (header("x"), b""), manifest=["x"], version=2),
    "an older version": lambda path: made(path, (header("x"), b""), manifest=["x"], version=0),
    "another size": lambda path: made(path, (header("x", 1), b"x"), manifest=["x"], more=1),
    "empty": made,
    "too large": lambda path: made(path, (header("x", 2 * LIMIT), b"0" * 2 * LIMIT), manifest=["x"]),
    "not zstd": lambda path: raw(path, b"no"),
    "no bytes": lambda path: raw(path, b""),
    "not tar": lambda path: raw(path, zstandard.compress(b"no" * 5000)),
    "zeros": lambda path: raw(path, zstandard.compress(b"\0" * (64 << 20))),
}


class TestUnpack:
    @pytest.mark.parametrize("name", HOSTILE)
    def test_refuses_hostile_bundles(self, tmp_path: Path, name: str) -> None:
        bundle = HOSTILE[name](tmp_path / "bundle")
        with pytest.raises(RefusedInput) as caught:
            unpack_bundle(bundle, tmp_path / "deep/out", limit_bytes=LIMIT)
        assert caught.value.code == "bad_bundle"
        outside = [path.name for path in (*tmp_path.iterdir(), *(tmp_path / "deep").iterdir())]
        assert sorted(outside) == ["bundle", "deep", "out"]
        assert not any(path.is_symlink() for path in (tmp_path / "deep/out").rglob("*"))

    @pytest.mark.parametrize("name", sorted(HOSTILE.keys() - {"file as folder"}))
    def test_a_reader_refuses_them_too(self, tmp_path: Path, name: str) -> None:
        """So that they are refused when a run is submitted, not when it starts."""
        read = bundle_reader(HOSTILE[name](tmp_path / "bundle"), limit_bytes=LIMIT)
        with pytest.raises(RefusedInput, match="The bundle can't be used"):
            read("x")

    def test_what_differs_from_the_manifest_is_refused_by_a_reader(self, tmp_path: Path) -> None:
        digest = archived(tmp_path, {"a": (b"b" * 3000, False)}, tmp_path / "b")
        assert digest
        assert bundle_reader(tmp_path / "b")("a") == b"b" * 3000
        plain = zstandard.ZstdDecompressor().stream_reader((tmp_path / "b").read_bytes()).read()
        raw(tmp_path / "c", zstandard.compress(plain.replace(b"bbb", b"bba")))
        with pytest.raises(RefusedInput, match="differs from the manifest"):
            bundle_reader(tmp_path / "c")("a")

    def test_a_manifest_may_leave_out_version_and_sizes(self, tmp_path: Path) -> None:
        entry = {"path": "x", "sha256": hashlib.sha256(b"1").hexdigest()}
        manifest = json.dumps({"files": [entry]}).encode()
        bundle = made(tmp_path / "b", (header(MANIFEST, len(manifest)), manifest), (header("x", 1), b"1"))
        assert bundle_reader(bundle)("x") == b"1"
        assert unpack_bundle(bundle, tmp_path / "out", limit_bytes=LIMIT) == ["x"]

    @pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
    def test_a_torn_one_is_called_so(self, tmp_path: Path, kept: float) -> None:
        archived(tmp_path, {"a": (os.urandom(300_000), False)}, tmp_path / "b")
        whole = (tmp_path / "b").read_bytes()
        with pytest.raises(RefusedInput, match="its end is missing"):
            bundle_reader(raw(tmp_path / "c", whole[: int(len(whole) * kept)]))("a")

    def test_damaged_anywhere_is_refused(self, tmp_path: Path) -> None:
        archived(tmp_path, {"a": (os.urandom(3000), False), "b": (b"x" * 3000, False)}, tmp_path / "b")
        whole = (tmp_path / "b").read_bytes()
        codes = set()
        for number, position in enumerate(range(0, len(whole), max(1, len(whole) // 40))):
            for damaged in (
                whole[:position],
                whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :],
            ):
                (tmp_path / "d").write_bytes(damaged)
                out = tmp_path / f"out{number}-{len(damaged)}"
                try:
                    unpack_bundle(tmp_path / "d", out, limit_bytes=LIMIT)
                except AtelierError as problem:
                    codes.add(problem.code)
                else:  # bytes of tar that mean nothing, as padding
                    assert {path.name for path in out.iterdir()} == {"a", "b"}
                    assert (out / "b").read_bytes() == b"x" * 3000
        assert codes == {"bad_bundle"}

    def test_folder_must_be_empty(self, tmp_path: Path) -> None:
        archived(tmp_path, {"a": (b"", False)}, tmp_path / "b")
        (tmp_path / "out").mkdir()
        (tmp_path / "out/there").touch()
        with pytest.raises(Conflict):
            unpack_bundle(tmp_path / "b", tmp_path / "out", limit_bytes=LIMIT)

    def test_bomb_of_headers_does_not_fill_the_memory(self, tmp_path: Path) -> None:
        program = f"""
import resource, tarfile, io, zstandard
from pathlib import Path
from atelier.bundle.snapshot import unpack_bundle
from atelier.errors import RefusedInput
compressor = zstandard.ZstdCompressor().compressobj()
with open({str(tmp_path / "b")!r}, "wb") as file:
    info = tarfile.TarInfo("x"); info.type = tarfile.XHDTYPE; info.size = 4 << 30
    file.write(compressor.compress(info.tobuf(tarfile.USTAR_FORMAT)))
    for _ in range(32):
        file.write(compressor.compress(bytes(16 << 20)))
    file.write(compressor.flush())
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
try:
    unpack_bundle(Path({str(tmp_path / "b")!r}), Path({str(tmp_path / "out")!r}), limit_bytes=1000)
except RefusedInput as problem:
    print(problem.code)
"""
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False, env=os.environ
        )
        assert done.stdout == "bad_bundle\n", done.stderr


@pytest.mark.parametrize("seed", range(3))
def test_ignore_patterns_mean_what_git_says(tmp_path: Path, seed: int) -> None:
    import random

    dice = random.Random(seed)
    parts = "a b * ** / ? x.log *.log [ab] [!a] \\ ! # build c d e [z] - ] [ f []q]".split(" ")
    parts.append(" ")
    paths = "a a/b a/b/c.py x.log a/x.log a/b/x.log b b/a #x !y c/d/e/f c/[z] a/build/o build [z] a-b q]".split()
    paths.append("foo bar")
    git(tmp_path, "init", "-q")
    for _ in range(40):
        pattern = "".join(dice.choice(parts) for _ in range(dice.randint(1, 5)))
        (tmp_path / ".gitignore").write_text(pattern + "\n")
        done = subprocess.run(
            ["git", "-c", "core.excludesfile=/dev/null", "check-ignore", "--no-index", "-v", "-n", "-z", "--stdin"],
            input="\0".join(paths) + "\0", cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        fields = done.stdout.split("\0")[:-1]
        said = {
            fields[k + 3]: bool(fields[k + 2]) and not fields[k + 2].startswith("!") for k in range(0, len(fields), 4)
        }
        assert {path: IgnoreFile([pattern]).ignores_file(path) for path in paths} == said, pattern
