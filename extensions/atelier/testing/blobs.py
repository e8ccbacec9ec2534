"""The suite of blob stores."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from atelier.errors import InternalError
from atelier.storage import BlobStore

ODD_KEYS = (
    "runs/r-aaaaaaaaaa/artifacts/a name with spaces.txt",
    "runs/r-aaaaaaaaaa/artifacts/naïve café/übung-🙂.txt",
    "runs/r-aaaaaaaaaa/artifacts/100%25.txt",
    "runs/r-aaaaaaaaaa/artifacts/%2e%2e/%2Fetc",
    "runs/r-aaaaaaaaaa/artifacts/what?.txt",
    "runs/r-aaaaaaaaaa/artifacts/loss#1.txt",
    'runs/r-aaaaaaaaaa/artifacts/it\'s "quoted" & <tagged>;x=1.txt',
    "runs/r-aaaaaaaaaa/artifacts/...",
    "runs/r-aaaaaaaaaa/artifacts/[1]*.txt",
)
MALFORMED_KEYS = ("", "/", "/etc/passwd", "a//b", "a/", "..", "../a", "a/../b", "a/..", ".", "a/./b", "a\0b")


class BlobStoreContract:
    """What the docstring of `BlobStore` promises. Override `blobs` with a fixture that gives an empty store."""

    @pytest.fixture
    def blobs(self) -> BlobStore:
        """An empty store."""
        raise NotImplementedError

    # -- writing and reading --------------------------------------------------------------------------------------
    @pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 4096], ids=["empty", "one byte", "1 MiB"])
    def test_what_was_written_is_read(self, blobs: BlobStore, data: bytes) -> None:
        blobs.write("a/b/c.bin", data)
        assert blobs.read("a/b/c.bin") == data
        assert blobs.size_bytes("a/b/c.bin") == len(data)
        assert blobs.exists("a/b/c.bin")

    def test_a_second_write_replaces_the_first(self, blobs: BlobStore) -> None:
        blobs.write("a/b", b"long before")
        blobs.write("a/b", b"new")
        assert blobs.read("a/b") == b"new"
        assert blobs.size_bytes("a/b") == 3
        assert list(blobs.keys("a")) == ["a/b"]

    def test_a_file_is_copied_in(self, blobs: BlobStore, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.write_bytes(b"first")
        blobs.put_file("a/b", source)
        source.write_bytes(b"changed afterwards")
        assert blobs.read("a/b") == b"first"
        blobs.put_file("a/b", source)
        assert blobs.read("a/b") == b"changed afterwards"

    def test_a_file_that_is_not_there_leaves_the_key_as_it_was(self, blobs: BlobStore, tmp_path: Path) -> None:
        blobs.write("a/b", b"before")
        for key in ("a/b", "a/c"):
            with pytest.raises(FileNotFoundError):
                blobs.put_file(key, tmp_path / "nowhere")
        assert blobs.read("a/b") == b"before"
        assert list(blobs.keys("a")) == ["a/b"]

    @pytest.mark.parametrize(
        ("offset", "length", "expected"),
        [(0, None, b"0123456789"), (4, None, b"456789"), (0, 3, b"012"), (7, 99, b"789"), (2, 0, b""), (10, None, b""),
         (99, 5, b""), (3, 4, b"3456")],
    )  # fmt: skip
    def test_a_range_is_read(self, blobs: BlobStore, offset: int, length: int | None, expected: bytes) -> None:
        blobs.write("digits", b"0123456789")
        assert blobs.read("digits", offset, length) == expected

    def test_a_stream_can_be_moved_in_and_closed(self, blobs: BlobStore) -> None:
        blobs.write("digits", b"0123456789")
        with blobs.open("digits") as stream:
            assert stream.read(2) == b"01"
            assert stream.seek(6) == 6
            assert stream.read(2) == b"67"
            assert stream.seek(0, 2) == 10
            assert stream.read() == b""
        with blobs.open("digits") as stream:
            assert stream.read() == b"0123456789"

    def test_what_is_not_there_says_so(self, blobs: BlobStore, tmp_path: Path) -> None:
        blobs.write("folder/inside", b"x")
        for key in ("nothing", "folder", "folder/inside/deeper", "folder/insid"):
            assert not blobs.exists(key)
            for look in (
                blobs.open,
                blobs.size_bytes,
                blobs.age_s,
                blobs.read,
                lambda key: blobs.copy(key, "elsewhere"),
            ):
                with pytest.raises(FileNotFoundError):
                    look(key)
        assert not blobs.exists("elsewhere")

    @pytest.mark.parametrize("key", MALFORMED_KEYS, ids=repr)
    def test_a_malformed_key_is_refused_everywhere(self, blobs: BlobStore, tmp_path: Path, key: str) -> None:
        blobs.write("good", b"x")
        source = tmp_path / "source"
        source.touch()
        uses: list[Callable[[], object]] = [
            lambda: blobs.write(key, b"x"), lambda: blobs.put_file(key, source), lambda: blobs.open(key),
            lambda: blobs.read(key), lambda: blobs.size_bytes(key), lambda: blobs.exists(key),
            lambda: list(blobs.keys(key)), lambda: blobs.copy(key, "x"), lambda: blobs.copy("good", key),
            lambda: blobs.delete(key), lambda: blobs.age_s(key), lambda: blobs.expire(key, 0),
            lambda: blobs.read_url(key), lambda: blobs.write_url(key), lambda: blobs.names(key),
            lambda: blobs.sizes(key),
        ]  # fmt: skip
        for use in uses:
            with pytest.raises(InternalError) as caught:
                use()
            assert caught.value.code == "bad_key"
        assert blobs.read("good") == b"x"

    @pytest.mark.parametrize("key", ODD_KEYS)
    def test_odd_names_are_names_like_others(self, blobs: BlobStore, key: str) -> None:
        blobs.write(key, key.encode())
        assert list(blobs.keys("runs/r-aaaaaaaaaa")) == [key]
        assert blobs.read(key) == key.encode()
        blobs.copy(key, f"copy/{key}")
        blobs.delete(key)
        assert not blobs.exists(key)
        assert blobs.read(f"copy/{key}") == key.encode()

    # -- keys and removal -----------------------------------------------------------------------------------------
    def test_keys_below_a_prefix_come_sorted(self, blobs: BlobStore) -> None:
        keys = ["run/b", "run/a/z", "run/a/b/c", "run/a.txt", "run/aa", "run/ab/x"]
        for key in [*keys, "run2/x", "ru", "other/run/x"]:
            blobs.write(key, b"")
        assert list(blobs.keys("run")) == sorted(keys)
        assert list(blobs.keys("run/a")) == ["run/a/b/c", "run/a/z"]
        assert list(blobs.keys("run/b")) == []
        assert list(blobs.keys("nowhere")) == []

    def test_names_below_a_prefix_come_once_and_sizes_with_their_keys(self, blobs: BlobStore) -> None:
        sizes = {"runs/r-b/run.json": 3, "runs/r-a/log/1": 0, "runs/r-a/log/2": 7, "runs/r-a/x y#1": 1, "runs/note": 2}
        for key, size in [*sizes.items(), ("runs2/r-c/x", 5), ("run", 5)]:
            blobs.write(key, b"x" * size)
        assert blobs.names("runs") == ["note", "r-a", "r-b"]
        assert blobs.names("runs/r-a") == ["log", "x y#1"]
        assert blobs.sizes("runs") == sizes
        assert list(blobs.sizes("runs")) == list(blobs.keys("runs"))
        assert blobs.sizes("runs/r-a/log") == {"runs/r-a/log/1": 0, "runs/r-a/log/2": 7}
        for nothing in ("nowhere", "runs/note", "runs/r-a/log/1"):
            assert (blobs.names(nothing), blobs.sizes(nothing)) == ([], {})
        assert blobs.clear_unfinished("runs", 0) == 0
        assert blobs.sizes("runs") == sizes

    def test_numbers_of_equal_width_sort_as_numbers(self, blobs: BlobStore) -> None:
        offsets = random.Random(7).sample(range(10**12), 50)
        for offset in offsets:
            blobs.write(f"log/{offset:015d}", b"x")
        assert [int(key.split("/")[1]) for key in blobs.keys("log")] == sorted(offsets)

    def test_removal_takes_the_key_and_all_below_and_nothing_beside(self, blobs: BlobStore) -> None:
        for key in ("runs/r-ab", "runs/r-a/log/1", "runs/r-a/log/2", "runs/r-a/x", "runs/r-abc/x"):
            blobs.write(key, b"x")
        blobs.delete("runs/r-a/log")
        assert list(blobs.keys("runs")) == ["runs/r-a/x", "runs/r-ab", "runs/r-abc/x"]
        blobs.delete("runs/r-a")
        blobs.delete("runs/r-a")
        blobs.delete("runs/r-ab")
        assert list(blobs.keys("runs")) == ["runs/r-abc/x"]

    def test_a_copy_is_its_own(self, blobs: BlobStore) -> None:
        blobs.write("a", b"first")
        blobs.copy("a", "deep/er/b")
        blobs.write("a", b"second")
        assert blobs.read("deep/er/b") == b"first"
        blobs.copy("a", "deep/er/b")
        blobs.delete("a")
        assert blobs.read("deep/er/b") == b"second"

    # -- age ------------------------------------------------------------------------------------------------------
    def test_what_is_old_expires_and_nothing_else(self, blobs: BlobStore) -> None:
        for key in ("uploads/ann/old", "uploads/ann/kept", "uploads/bob/old", "runs/old", "uploads2/old"):
            blobs.write(key, b"x")
        time.sleep(1.2)
        blobs.write("uploads/ann/kept", b"written again")
        blobs.write("uploads/ann/new", b"x")
        assert blobs.age_s("uploads/ann/old") > 1 > blobs.age_s("uploads/ann/new") >= 0
        assert blobs.expire("uploads", 60) == 0
        assert blobs.expire("uploads", 1) == 2
        assert blobs.expire("uploads", 1) == 0
        assert blobs.expire("nowhere", 0) == 0
        assert list(blobs.keys("uploads")) == ["uploads/ann/kept", "uploads/ann/new"]
        assert blobs.read("uploads/ann/kept") == b"written again"
        assert blobs.exists("runs/old")
        assert blobs.exists("uploads2/old")

    # -- at once --------------------------------------------------------------------------------------------------
    def test_readers_see_one_writers_whole_bytes(self, blobs: BlobStore) -> None:
        """Eight writers of one key, each with bytes of its own length and letter, and readers meanwhile."""
        payloads = [bytes([65 + n]) * (60_000 + n) for n in range(8)]
        blobs.write("shared", payloads[0])
        ending = threading.Event()

        def write_often(data: bytes) -> None:
            for _ in range(10):
                blobs.write("shared", data)

        def read_on() -> int:
            seen = 0
            while not ending.is_set():
                assert blobs.read("shared") in payloads, "a reader saw a torn write"
                seen += 1
            return seen

        with ThreadPoolExecutor(10) as pool:
            readers = [pool.submit(read_on) for _ in range(2)]
            writers = [pool.submit(write_often, data) for data in payloads]
            try:
                for writer in writers:
                    writer.result(timeout=30)
            finally:
                ending.set()
            assert sum(reader.result(timeout=10) for reader in readers) > 0
        assert blobs.read("shared") in payloads
        assert list(blobs.keys("shared")) == []

    def test_one_prefix_removed_by_several_at_once(self, blobs: BlobStore) -> None:
        for round_ in range(3):
            for n in range(40):
                blobs.write(f"run/{round_}/{n % 4}/{n}", b"x")
            with ThreadPoolExecutor(6) as pool:
                done = [pool.submit(blobs.delete, f"run/{round_}") for _ in range(6)]
                for each in done:
                    each.result(timeout=10)
        assert list(blobs.keys("run")) == []

    def test_one_is_listed_while_another_is_removed(self, blobs: BlobStore) -> None:
        with ThreadPoolExecutor(2) as pool:
            for round_ in range(10):
                for n in range(10):
                    blobs.write(f"run/{round_}/{n}/x", b"x")
                removal = pool.submit(blobs.delete, f"run/{round_}")
                assert set(blobs.keys("run")) <= {f"run/{round_}/{n}/x" for n in range(10)}
                removal.result(timeout=10)
