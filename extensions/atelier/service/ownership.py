"""Finds what lies in the blob store and no row owns: what crashes, cut-off uploads and dead attempts have left.

A blob is listed first, and the rows are read after it. Whoever may still write has a row before he writes: a run before
its code, an attempt before its files, a version of a model before its package. So what is nobody's by then can't become
anybody's, however slow its writer is; what an attempt that lives has stored and not yet told of is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from atelier.service.store.owning import OwningStore, RunOwns
from atelier.storage import BlobStore, RunPaths

RUNS_AT_ONCE = 200
_OF_THE_RUN = frozenset({"run.json", "bundle.tar.zst", "lock.txt", "notebook.ipynb"})
_OF_AN_ATTEMPT = frozenset({"log.txt", "metrics.jsonl", "result.json"})
_CHUNKS = frozenset({"log", "metrics"})


@dataclass(frozen=True)
class Orphan:
    """A blob, or a folder of them, that no row owns."""

    key: str
    size_bytes: int


def find_orphans(
    blobs: BlobStore, owning: OwningStore, *, between_pages: Callable[[], None] = lambda: None
) -> Iterator[Orphan]:
    """All of runs, page by page in memory that doesn't grow with them, and of models; uploads go by their age."""
    names = iter(blobs.names("runs"))
    while page := list(islice(names, RUNS_AT_ONCE)):
        between_pages()
        there = {run_id: blobs.sizes(f"runs/{run_id}") for run_id in page}
        owns = owning.of_runs(page)
        for run_id, sizes in there.items():
            yield from _of_run(run_id, sizes, owns.get(run_id))
    yield from _of_models(blobs, owning)


def _of_run(run_id: str, sizes: Mapping[str, int], owns: RunOwns | None) -> Iterator[Orphan]:
    if owns is not None:
        yield from (Orphan(key, sizes[key]) for key in unowned(run_id, sizes, owns))
    elif sizes:
        yield Orphan(f"runs/{run_id}", sum(sizes.values()))


def unowned(run_id: str, keys: Iterable[str], owns: RunOwns) -> Iterator[str]:
    """Which of the blobs in a run's folder are not its own."""
    start = len(RunPaths(run_id).root) + 1
    return (key for key in keys if not _owns(key, key[start:].split("/"), owns))


def _owns(key: str, parts: list[str], owns: RunOwns) -> bool:
    kind, deeper = parts[0], parts[1:]
    if kind == "attempts" and len(deeper) > 1 and _number(deeper[0]) in owns.attempts:
        is_sent = deeper[1] == "incoming" and _number(deeper[0]) == owns.live
        return is_sent or deeper[1] in _OF_AN_ATTEMPT or (deeper[1] in _CHUNKS and not owns.is_stored)
    if kind == "artifacts" and deeper:
        return _number(deeper[0]) == owns.live or key in owns.artifacts
    if kind == "checkpoints" and deeper:
        return _number(deeper[0].partition("-")[0]) == owns.live or key in owns.checkpoints
    return kind in _OF_THE_RUN and not deeper


def _number(text: str) -> int:
    """The number of an attempt; 0, which none has, for what is no number."""
    return int(text[:9]) if text.isdecimal() else 0


def _of_models(blobs: BlobStore, owning: OwningStore) -> Iterator[Orphan]:
    sizes = blobs.sizes("models")
    owned = owning.of_models() if sizes else set()
    yield from (Orphan(key, size) for key, size in sizes.items() if key not in owned)
