"""Logs and metrics of attempts: few chunks however many shipments, whole after a crash, read and composed in pieces."""

from __future__ import annotations

import json
import random
import threading
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from atelier.service.chunks import MERGED_AT_ONCE
from atelier.service.store import Store
from atelier.service.streams import Streams
from atelier.storage import BlobStore, FilesystemBlobs, open_blobs
from atelier.storage.paths import RunPaths
from atelier.testing.samples import BROKEN, claimed, due_now, running


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'atelier.sqlite'}")
    yield store
    store.close()


@pytest.fixture(params=["file", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    return open_blobs(
        (tmp_path / "blobs").as_uri() if request.param == "file" else f"memory://{uuid.uuid4().hex}/blobs"
    )


class CountedBlobs(FilesystemBlobs):
    """Counts listings, and fails at removals while ``dies`` is set, as a process that is killed there."""

    listings = 0
    dies = False

    def keys(self, prefix: str) -> Iterator[str]:
        self.listings += 1
        return super().keys(prefix)

    def delete(self, prefix: str) -> None:
        if self.dies:
            raise KeyboardInterrupt
        super().delete(prefix)


def fill(streams: Streams, store: Store, shipments: list[bytes]) -> tuple[str, bytes]:
    """A running attempt with these shipments in its log: its run, and all the bytes."""
    claim, size = running(store), 0
    for data in shipments:
        size, _ = streams.append(claim.run_id, claim.n, "log", size, data)
    assert size == sum(map(len, shipments))
    return claim.run_id, b"".join(shipments)


def numbered(count: int) -> list[bytes]:
    """Shipments of different lengths."""
    return [b"%d %s\n" % (n, b"x" * (n % 23)) for n in range(count)]


@contextmanager
def memory_below(most_bytes: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most_bytes, f"{peak / 2**20:.1f} MiB were held at once"


# -- attempts -----------------------------------------------------------------------------------------------------
def test_a_step_that_a_later_attempt_told_again_is_there_once(store: Store, blobs: BlobStore) -> None:
    streams, claim = Streams(store, blobs), running(store, retries=3)
    told = {1: range(6), 2: range(4, 8), 3: (), 4: range(6, 9)}
    for n, steps in told.items():
        lines = [json.dumps({"t": n, "step": step, "values": {"loss": n, f"of {n}": step}}) + "\n" for step in steps]
        lines += [json.dumps({"t": n, "step": None, "values": {"note": n}}) + "\n"] * (n != 3)
        streams.append(claim.run_id, n, "metrics", 0, "".join(lines).encode())
        if n < 4:
            store.runs.finish(claim.run_id, n, BROKEN)
            streams.compose(claim.run_id, n)
            due_now(store, claim.run_id)
            store.runs.started(claim.run_id, claimed(store).n, None)
    run, curves = store.runs.get(claim.run_id), store.streams.curves(claim.run_id)
    assert list(streams.points(run, "loss")) == [[n, 1, 1] for n in range(4)] + [[4, 2, 2], [5, 2, 2]] + [
        [n, 4, 4] for n in range(6, 9)
    ]
    assert list(streams.points(run, "of 1")) == [[n, n, 1] for n in range(6)]
    assert list(streams.points(run, "note")) == [[None, n, n] for n in (1, 2, 4)]
    for name in ("loss", "of 1", "note"):
        assert curves[name]["points"] == list(streams.points(run, name)), "the curve that views draw differs"


# -- chunks -------------------------------------------------------------------------------------------------------
def test_many_shipments_become_few_chunks_that_read_the_same(store: Store, blobs: BlobStore) -> None:
    streams = Streams(store, blobs)
    run_id, whole = fill(streams, store, numbered(300))
    chunks = list(blobs.keys(RunPaths(run_id).chunks(1, "log")))
    assert len(chunks) < 2 * MERGED_AT_ONCE
    dice = random.Random(1)
    for reader in (streams, Streams(store, blobs)):
        assert reader.read(run_id, 1, "log", 0, 10**9) == whole
        for _ in range(50):
            start, length = dice.randrange(len(whole) + 5), dice.randrange(200)
            assert reader.read(run_id, 1, "log", start, length) == whole[start : start + length]


def test_a_look_at_the_end_lists_nothing(store: Store, tmp_path: Path) -> None:
    blobs = CountedBlobs(tmp_path / "blobs")
    streams = Streams(store, blobs)
    run_id, whole = fill(streams, store, numbered(20))
    listed = blobs.listings
    for _ in range(5):
        assert streams.read(run_id, 1, "log", len(whole) - 9, 9) == whole[-9:]
    assert blobs.listings == listed


def test_a_service_that_dies_while_merging_loses_and_repeats_nothing(store: Store, tmp_path: Path) -> None:
    blobs = CountedBlobs(tmp_path / "blobs")
    shipments = numbered(MERGED_AT_ONCE + 70)
    run_id, before = fill(Streams(store, blobs), store, shipments[: MERGED_AT_ONCE - 1])
    blobs.dies = True
    with pytest.raises(KeyboardInterrupt):
        Streams(store, blobs).append(run_id, 1, "log", len(before), shipments[MERGED_AT_ONCE - 1])
    blobs.dies = False
    assert len(list(blobs.keys(RunPaths(run_id).chunks(1, "log")))) == MERGED_AT_ONCE
    streams, whole = Streams(store, blobs), b"".join(shipments)
    size = store.streams.size(run_id, 1, "log")
    assert streams.read(run_id, 1, "log", 0, 10**9) == whole[:size]
    for data in shipments[MERGED_AT_ONCE:]:
        size, _ = streams.append(run_id, 1, "log", size, data)
    assert streams.read(run_id, 1, "log", 0, 10**9) == whole
    streams.compose(run_id, 1)
    assert blobs.read(RunPaths(run_id).whole(1, "log")) == whole


def test_bytes_that_were_stored_and_not_acknowledged_are_not_told(store: Store, blobs: BlobStore) -> None:
    run_id, whole = fill(Streams(store, blobs), store, [b"first\n"])
    blobs.write(RunPaths(run_id).chunk(1, "log", len(whole)), b"torn and lost")
    streams = Streams(store, blobs)
    page = streams.page(store.runs.get(run_id), attempt=None, offset=0, limit=100)
    assert (page["text"], page["next"]) == ("first\n", 6)
    assert streams.page(store.runs.get(run_id), attempt=None, offset=6, limit=100)["text"] == ""
    assert streams.append(run_id, 1, "log", 6, b"second\n")[0] == 13
    streams.append(run_id, 1, "log", 13, b"third\n")
    assert streams.read(run_id, 1, "log", 0, 10**9) == b"first\nsecond\nthird\n"


def test_readers_see_every_byte_while_chunks_are_merged_and_composed(store: Store, blobs: BlobStore) -> None:
    streams, shipments = Streams(store, blobs), numbered(3 * MERGED_AT_ONCE)
    whole, claim, over = b"".join(shipments), running(store), threading.Event()

    def read_on() -> int:
        reads = 0
        while not over.is_set():
            size = store.streams.size(claim.run_id, claim.n, "log")
            assert streams.read(claim.run_id, claim.n, "log", 0, size) == whole[:size]
            reads += 1
        return reads

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read_on) for _ in range(2)]
        try:
            size = 0
            for data in shipments:
                size, _ = streams.append(claim.run_id, claim.n, "log", size, data)
            streams.compose(claim.run_id, claim.n)
        finally:
            over.set()
        assert all(reader.result(timeout=30) for reader in readers)
    assert streams.read(claim.run_id, claim.n, "log", 0, 10**9) == whole


class ComposingBlobs(FilesystemBlobs):
    """Blobs in which ``compose`` is called between the question for a whole and the one for its chunks."""

    compose: Callable[[], None] | None = None

    def exists(self, key: str) -> bool:
        before, compose = super().exists(key), self.compose
        if compose is not None:
            self.compose = None
            compose()
        return before


def test_a_reader_in_the_middle_of_a_composition_sees_every_byte(store: Store, tmp_path: Path) -> None:
    blobs = ComposingBlobs(tmp_path / "blobs")
    streams = Streams(store, blobs)
    run_id, whole = fill(streams, store, [b"first\n", b"second\n"])
    blobs.compose = lambda: streams.compose(run_id, 1)
    assert streams.read(run_id, 1, "log", 0, 10**9) == whole
    assert blobs.read(RunPaths(run_id).whole(1, "log")) == whole


def test_one_shipment_sent_twice_at_once_is_there_once(store: Store, blobs: BlobStore) -> None:
    streams, claim, together = Streams(store, blobs), running(store), threading.Barrier(4)

    def ship(length: int) -> int:
        together.wait(10)
        return streams.append(claim.run_id, claim.n, "log", 0, b"0123456789"[:length])[0]

    with ThreadPoolExecutor(4) as pool:
        sizes = {each.result(timeout=30) for each in [pool.submit(ship, length) for length in (10, 7, 10, 7)]}
    assert len(sizes) == 1
    size = sizes.pop()
    streams.append(claim.run_id, claim.n, "log", size, b"|end")
    assert streams.read(claim.run_id, claim.n, "log", 0, 99) == b"0123456789"[:size] + b"|end"


# -- pieces -------------------------------------------------------------------------------------------------------
def test_a_large_log_is_composed_in_pieces(store: Store, tmp_path: Path) -> None:
    blobs = FilesystemBlobs(tmp_path / "blobs")
    streams, block = Streams(store, blobs, tmp_path), bytes(range(256)) * 4096
    run_id, whole = fill(streams, store, [block] * 24)
    with memory_below(6 << 20):
        streams.compose(run_id, 1)
    assert blobs.read(RunPaths(run_id).whole(1, "log")) == whole
    assert list(blobs.keys(RunPaths(run_id).chunks(1, "log"))) == []
    assert not list(tmp_path.glob("compose-*"))
    streams.compose(run_id, 1)
    assert streams.read(run_id, 1, "log", 1000, 10) == whole[1000:1010]


def test_every_point_of_a_long_metric_is_read_in_pieces(store: Store, tmp_path: Path) -> None:
    streams, claim, size = Streams(store, FilesystemBlobs(tmp_path / "blobs")), running(store), 0
    step = 0
    for _ in range(8):
        lines = []
        for _ in range(2500):
            values = {"loss": step / 2, "note": 1.0, "x" * 150: 0.25}
            lines.append(json.dumps({"t": 1.5, "step": step, "values": values}).encode() + b"\n")
            step += 1
        size, _ = streams.append(claim.run_id, claim.n, "metrics", size, b"".join(lines))
    run = store.runs.get(claim.run_id)
    for _ in range(2):
        with memory_below(12 << 20):
            for wanted, point in enumerate(streams.points(run, "loss")):
                assert point == [wanted, wanted / 2, 1.5]
        assert wanted == step - 1
        streams.compose(claim.run_id, claim.n)
