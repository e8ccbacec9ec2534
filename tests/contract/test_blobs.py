"""Both blob stores pass the one suite; the folder also keeps its word when its writer is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from atelier.agent.place import fetch, store
from atelier.errors import Unavailable
from atelier.local.plain import write_whole
from atelier.storage import BlobStore, FilesystemBlobs, open_blobs
from atelier.storage.objects import ObjectBlobs
from atelier.testing.blobs import ODD_KEYS, BlobStoreContract
from tests.synced import Synced

WRITER = """
import sys
from atelier.storage import open_blobs
blobs = open_blobs(sys.argv[1])
for n in range(10**6):
    blobs.write("key", bytes([n % 256]) * (8 << 20))
    print(n, flush=True)
"""


class TestFilesystemBlobs(BlobStoreContract):
    @pytest.fixture
    def blobs(self, tmp_path: Path) -> BlobStore:
        return open_blobs((tmp_path / "ein Ordner #1 mit 100%").as_uri())

    def test_it_is_the_folder_that_the_url_names(self, tmp_path: Path) -> None:
        blobs = open_blobs((tmp_path / "100% mine").as_uri())
        assert isinstance(blobs, FilesystemBlobs)
        blobs.write("x", b"y")
        assert (tmp_path / "100% mine" / "x").read_bytes() == b"y"

    def test_only_its_owner_may_look_inside(self, blobs: FilesystemBlobs) -> None:
        blobs.write("a/b/c", b"secret")
        for path in (blobs.root, blobs.root / "a/b/c"):
            assert path.stat().st_mode & 0o077 == 0, path

    @pytest.mark.parametrize("key", ODD_KEYS)
    def test_an_agent_stores_and_fetches_by_url(self, blobs: FilesystemBlobs, tmp_path: Path, key: str) -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        source.write_bytes(key.encode())
        store(source, blobs.write_url(key))
        assert blobs.read(key) == key.encode()
        fetch(blobs.read_url(key), target)
        assert target.read_bytes() == key.encode()

    @pytest.mark.parametrize("name", ["runs", "runs/r", "runs/r/log", "runs/r/log/0"])
    def test_no_link_below_the_folder_is_followed(self, blobs: FilesystemBlobs, tmp_path: Path, name: str) -> None:
        """Whatever of a key is a link, it is as if nothing were there: to be read, written, copied, listed, removed."""
        elsewhere, source, key = tmp_path / "elsewhere", tmp_path / "source", "runs/r/log/0"
        secret = elsewhere.joinpath(*key.split("/"))
        secret.parent.mkdir(parents=True)
        secret.write_bytes(b"secret")
        source.write_bytes(b"new")
        blobs.write("good", b"x")

        def swap() -> None:
            blobs.delete(name)
            (blobs.root / name).parent.mkdir(parents=True, exist_ok=True)
            (blobs.root / name).symlink_to(elsewhere / name)

        uses = (blobs.open, blobs.size_bytes, blobs.age_s, blobs.read, lambda key: blobs.copy(key, "copy"))
        for use in uses:
            swap()
            with pytest.raises(FileNotFoundError):
                use(key)
        assert not blobs.exists(key)
        assert list(blobs.keys("runs")) == []
        assert blobs.sizes("runs") == {}
        assert name == "runs" or blobs.names(name.rpartition("/")[0]) == []
        with pytest.raises((FileNotFoundError, NotADirectoryError)):
            fetch(blobs.read_url(key), tmp_path / "target")
        if name != key:
            with pytest.raises(NotADirectoryError):
                store(source, blobs.read_url(key))
        for write in (
            lambda: blobs.write(key, b"new"),
            lambda: blobs.put_file(key, source),
            lambda: blobs.copy("good", key),
            lambda: store(source, blobs.write_url(key)),
        ):
            swap()
            write()
            assert blobs.read(key) in {b"new", b"x"}
        swap()
        blobs.delete(key)
        assert not blobs.exists(key)
        assert secret.read_bytes() == b"secret"
        assert [path for path in elsewhere.rglob("*") if path.is_file()] == [secret]

    def test_what_is_written_survives_a_loss_of_power(
        self, blobs: FilesystemBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No test can cut the power: it sees which files and folders were synced, and which names each folder had."""
        source, synced = tmp_path / "source", Synced(monkeypatch)
        source.write_bytes(b"x")
        blobs.write("new/folder/a", b"x")
        blobs.put_file("new/folder/b", source)
        store(source, blobs.write_url("other/c"))
        blobs.copy("new/folder/a", "copies/d")
        write_whole(tmp_path / "result.json", b"{}")
        stored = [path for path in blobs.root.rglob("*") if path.name in "abcd"]
        assert len(stored) == 4
        for path in (*stored, tmp_path / "result.json"):
            assert path.stat().st_ino in synced.files, path
            for place in (path, *path.parents):
                if place in {blobs.root, tmp_path}:
                    break
                assert place.name in synced.names.get(place.parent, set()), f"{place} may be gone from its folder"

    def test_a_killed_writer_leaves_the_old_bytes_or_the_new(self, blobs: FilesystemBlobs) -> None:
        for delay_s in (0.0, 0.005, 0.01, 0.02):
            writer = subprocess.Popen(
                [sys.executable, "-c", WRITER, blobs.root.as_uri()], stdout=subprocess.PIPE, text=True
            )
            with writer:
                assert writer.stdout is not None
                assert writer.stdout.readline(), "the writer ended before it had written"
                time.sleep(delay_s)
                writer.kill()
            data = blobs.read("key")
            assert len(data) == 8 << 20
            assert set(data) == {data[0]}
            assert list(blobs.keys("key")) == []
        part = blobs.root / "uploads" / ".part-left"
        part.parent.mkdir()
        part.write_bytes(b"half")
        assert blobs.expire("uploads", 60) == 0
        assert part.exists()
        os.utime(part, (0, 0))
        assert blobs.names("uploads") == []
        assert blobs.expire("uploads", 60) == 1
        assert not part.exists()


class TestObjectBlobs(BlobStoreContract):
    @pytest.fixture
    def blobs(self) -> BlobStore:
        return open_blobs(f"memory://{uuid.uuid4().hex}/blobs")

    def test_any_other_scheme_is_an_object_store(self, blobs: BlobStore) -> None:
        assert isinstance(blobs, ObjectBlobs)

    def test_two_stores_at_one_place_see_the_same(self) -> None:
        place = f"memory://{uuid.uuid4().hex}"
        open_blobs(place).write("a/b", b"x")
        assert open_blobs(place).read("a/b") == b"x"
        assert open_blobs(f"{place}/a").read("b") == b"x"

    def test_a_scheme_that_no_library_knows_is_said(self) -> None:
        with pytest.raises(Unavailable, match="nosuchscheme") as caught:
            open_blobs("nosuchscheme://bucket/x")
        assert caught.value.code == "blob_store_unknown"
        assert caught.value.hint
