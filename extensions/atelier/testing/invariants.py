"""What must be true of a home whatever died in it: ``python -m atelier.testing.invariants HOME`` tells what is not.

It reads the store, the blobs and ``/proc``, and changes nothing. Runs that go on are looked at where they can be.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Row

from atelier.errors import InternalError
from atelier.naming import SYSTEM
from atelier.records import FINAL_STATES, RUN_MOVES, AttemptState, Run, RunState
from atelier.service.attempts import artifact_key
from atelier.service.store import parse_points
from atelier.service.store.assembly import artifact_of
from atelier.service.store.curves import MOST_NAMES, MOST_POINTS
from atelier.service.store.database import told_database_errors
from atelier.service.store.lifecycle import holder_of
from atelier.service.store.streams import Point
from atelier.storage.paths import UPLOADS, model_key
from atelier.testing.snapshot import File, Snapshot


class Broken(NamedTuple):
    """An invariant that does not hold, and the sentence that says where."""

    invariant: str
    words: str


MOST_CHARS = 500
"""What is told of one fault."""

Check = Callable[[Snapshot], Iterator[str]]


def moves_are_legal(home: Snapshot) -> Iterator[str]:
    """Every run went from ``created`` to where it is by the moves that there are, each counted once."""
    for run in home.runs:
        chain = sorted(
            (row for row in home.tables["transitions"] if row.run_id == run.id), key=lambda row: int(row.seq)
        )
        state: str | None = None
        for move in chain:
            known = RUN_MOVES[RunState(state)] if state else {RunState.CREATED}
            if move.before != state or RunState(move.after) not in known:
                yield f"{run.id} moved from {move.before} to {move.after} when it was {state}"
            state = move.after
        if state != run.state or len(chain) != run.epoch + 1:
            yield f"{run.id} is {run.state} in epoch {run.epoch}, and its {len(chain)} moves lead to {state}"


def an_end_comes_once(home: Snapshot) -> Iterator[str]:
    """A run has one final state, and a moment at which it ended; one that goes on has neither."""
    finals = Counter(row.run_id for row in home.tables["transitions"] if row.after in FINAL_STATES)
    for run in home.runs:
        is_final = RunState(run.state).is_final
        if finals[run.id] != is_final:
            yield f"{run.id} is {run.state} and came to {finals[run.id]} final states"
        if (run.ended_at is not None) != is_final:
            yield f"{run.id} is {run.state} and ended at {run.ended_at}"


def attempts_are_in_step(home: Snapshot) -> Iterator[str]:
    """Attempts are counted from 1; all but the last have ended, and that one lives as long as its run does."""
    for run in home.runs:
        tries = home.attempts(run.id)
        if [row.n for row in tries] != list(range(1, run.attempt + 1)):
            yield f"{run.id} is at attempt {run.attempt} and has {[row.n for row in tries]}"
        live = [row.n for row in tries if not AttemptState(row.state).is_final]
        if live != ([run.attempt] if run.state in {RunState.STARTING, RunState.RUNNING} else []):
            yield f"{run.id} is {run.state} and its attempts {live} have not ended"
        yield from (
            f"{run.id}/{row.n} is {row.state} and ended at {row.ended_at}"
            for row in tries
            if (row.ended_at is not None) != AttemptState(row.state).is_final
        )


def nothing_is_held(home: Snapshot) -> Iterator[str]:
    """No accelerator is held by an attempt that is over."""
    live = {holder_of(row.run_id, row.n) for row in home.tables["attempts"] if not AttemptState(row.state).is_final}
    for lease in home.tables["leases"]:
        if lease.expires_at is None and lease.holder not in live:
            yield f"{lease.device} is held by {lease.holder}, which is over"


def no_process_is_left(home: Snapshot) -> Iterator[str]:
    """No process of an attempt that is over lives, whether it bears its mark or is in its control group."""
    for pid, run_id, n in sorted({*home.processes(), *home.grouped()}):
        if home.is_over(run_id, n):
            yield f"process {pid} of {run_id}/{n} lives, and that is over"


def no_folder_is_left(home: Snapshot) -> Iterator[str]:
    """No attempt that is over has a folder on this machine, and every folder is some attempt's."""
    known = {(row.run_id, row.n) for row in home.tables["attempts"]}
    for path, run_id, n in home.folders():
        if home.is_over(run_id, n) or (run_id, n) not in known:
            yield f"{path} is still there, and its attempt is {'over' if home.is_over(run_id, n) else 'not known'}"


def streams_are_whole(home: Snapshot) -> Iterator[str]:
    """Every acknowledged byte of a log and of metrics is there once: in one object when the attempt has ended."""
    final = {run.id for run in home.final_runs}
    for row in home.tables["attempts"]:
        for stream, size in (("log", row.log_size), ("metrics", row.metrics_size)):
            paths = home.paths(row.run_id)
            chunks = home.keys_below(paths.chunks(row.n, stream))
            if row.run_id in final:
                whole = paths.whole(row.n, stream)
                found = home.blobs.size_bytes(whole) if whole in home.keys else -1
                if found != size or chunks:
                    yield f"{whole} has {found} bytes and {len(chunks)} chunks beside it; {size} were acknowledged"
            elif not AttemptState(row.state).is_final:
                yield from _gaps(home, chunks, size)


def _gaps(home: Snapshot, chunks: list[str], size: int) -> Iterator[str]:
    """Where a stream that goes on lacks bytes; what overlaps counts for the later chunk."""
    reached = 0
    for key in chunks:
        begin = int(key.rpartition("/")[2])
        if begin > reached:
            yield f"{key} begins at {begin}, and the chunk before it ends at {reached}"
        reached = begin + home.blobs.size_bytes(key)
    if reached < size:
        yield f"the chunks of {chunks[:1] or 'a stream'} end at {reached}; {size} bytes were acknowledged"


def points_count_once(home: Snapshot) -> Iterator[str]:
    """The curve of each metric has the points that the streams of all attempts hold, each step once, and their last."""
    for run in home.final_runs:
        wanted = _curves_of(home, run.id)
        told = {name: curve for name, curve in home.streams.curves(run.id).items() if not name.startswith(SYSTEM)}
        counts, shown = (
            {name: len(points) for name, points in wanted.items()},
            {n: c["count"] for n, c in told.items()},
        )
        is_thinned = max(counts.values(), default=0) >= MOST_POINTS and run.attempt > 1
        if len(counts) > MOST_NAMES == len(shown):  # the others have no curves, and a warning says so
            counts = {name: count for name, count in counts.items() if name in shown}
        if set(counts) != set(shown) or (counts != shown and not is_thinned):
            logged, has = dict(counts.items() - shown.items()), dict(shown.items() - counts.items())
            yield f"{run.id} logged {logged}, and its curves have {has}"
            continue
        for name in counts:
            points = wanted[name]
            last = {"step": points[-1].step, "value": points[-1].value, "time": points[-1].time}
            if told[name]["last"] != last:
                yield f"{run.id}: the curve of {name} ends with {told[name]['last']}, and the stream with {last}"


def _curves_of(home: Snapshot, run_id: str) -> dict[str, list[Point]]:
    """Points by name; an attempt that tells of a step takes back what earlier ones told from there on."""
    older: dict[str, list[Point]] = {}
    for row in home.attempts(run_id):
        own: dict[str, list[Point]] = {}
        whole = home.paths(run_id).whole(row.n, "metrics")
        for point in parse_points(home.blobs.read(whole)) if whole in home.keys else []:
            before = older.get(point.name, [])
            while point.step is not None and before and before[-1].step is not None and before[-1].step >= point.step:
                before.pop()
            own.setdefault(point.name, []).append(point)
        for name, points in own.items():
            older[name] = older.get(name, []) + points
    return older


def blobs_are_as_told(home: Snapshot) -> Iterator[str]:
    """Every file that a row tells of is there, with its size and its sha256."""
    faults = {file: words for file in told_files(home) if (words := _fault_of(home, file))}
    still = set(told_files(Snapshot(home.home, home.database, home.blobs))) if faults else ()
    yield from (words for file, words in faults.items() if file in still)  # a run that goes on lets old ones go


def _fault_of(home: Snapshot, file: File) -> str:
    try:
        if home.blobs.size_bytes(file.key) == file.size_bytes and home.sha256(file.key) == file.sha256:
            return ""
    except FileNotFoundError:
        return f"{file.key} is not there"
    return f"{file.key} is not what was stored"


def told_files(home: Snapshot) -> Iterator[File]:
    """The files of all artifacts, checkpoints and models."""
    for row in home.tables["artifacts"]:
        yield File(artifact_key(row.run_id, row.attempt, artifact_of(row)), row.size_bytes, row.sha256)
    for row in home.tables["checkpoints"]:
        folder = home.paths(row.run_id).checkpoint(row.attempt, row.step, copy=row.copy)
        for file in row.files:
            yield File(f"{folder}/{file['path']}", file["size_bytes"], file["sha256"])
    for row in home.tables["models"]:
        if row.published:
            yield from _files_of_model(row)


def _files_of_model(row: Row[Any]) -> Iterator[File]:
    folder = model_key(row.owner, row.name, row.version)
    return (File(f"{folder}/{file['path']}", file["size_bytes"], file["sha256"]) for file in row.files)


def code_is_kept(home: Snapshot) -> Iterator[str]:
    """Every run that got as far as the queue has the code that was submitted."""
    for run in home.runs:
        key = home.paths(run.id).bundle
        if run.queued_at is not None and (key not in home.keys or home.sha256(key) != run.spec["bundle"]):
            yield f"{key} is not the code that was submitted"


def uploads_are_what_they_are_called(home: Snapshot) -> Iterator[str]:
    """Every upload has the content that its name tells."""
    for key in home.blobs.keys(UPLOADS):
        if home.sha256(key) != key.rpartition("/")[2]:
            yield f"{key} has another content"


def records_are_up_to_date(home: Snapshot) -> Iterator[str]:
    """``run.json`` of a run that has ended says what the store says."""
    for row in home.final_runs:
        key = home.paths(row.id).record
        told = home.blobs.read(key) if key in home.keys else b"{}"
        if not row.recorded or json.loads(told) != json.loads(home.store.get(row.id).model_dump_json()):
            yield f"{key} is not what the store knows of the run"


def results_are_true(home: Snapshot) -> Iterator[str]:
    """How an attempt says in ``result.json`` that it ended is how it has ended."""
    for row in home.tables["attempts"]:
        key = home.paths(row.run_id).result(row.n)
        if AttemptState(row.state).is_final and key in home.keys:
            told = json.loads(home.blobs.read(key))
            if (told["state"], told["reason"]) != (row.state, row.reason):
                yield f"{key} says {told['state']}, {told['reason']}; the store says {row.state}, {row.reason}"


def reasons_are_told(home: Snapshot) -> Iterator[str]:
    """A run that did not succeed says why in a sentence; one that succeeded gives no reason."""
    for row in home.final_runs:
        run: Run = home.store.get(row.id)
        if (run.reason is None) != (run.state is RunState.SUCCEEDED) or not run.message:
            yield f"{run.id} is {run.state}, for the reason {run.reason}: {run.message!r}"


def blobs_have_owners(home: Snapshot) -> Iterator[str]:
    """No blob is there that no row tells of."""
    owned = {file.key for file in told_files(home)}
    owned |= {file.key for row in home.tables["models"] for file in _files_of_model(row)}
    going_on = {home.paths(row.id).root for row in home.tables["removed_runs"] if row.swept_at is None}
    for run in home.runs:
        paths = home.paths(run.id)
        owned |= {paths.record, paths.bundle, paths.lock, paths.notebook}
        for row in home.attempts(run.id):
            owned |= {paths.result(row.n), paths.whole(row.n, "log"), paths.whole(row.n, "metrics")}
        if not RunState(run.state).is_final:
            going_on.add(paths.root)
    for key in home.keys:
        if key not in owned and "/".join(key.split("/")[:2]) not in going_on:
            yield f"{key} is nobody's"


def the_database_is_sound(home: Snapshot) -> Iterator[str]:
    """SQLite finds its file in order, and every row belongs to a run that is there."""
    if home.database.is_sqlite:
        with home.database.read() as connection:
            for check, well in (("integrity_check", [("ok",)]), ("foreign_key_check", [])):
                found: list[Row[Any]] = list(connection.exec_driver_sql(f"PRAGMA {check}"))
                if [tuple(row) for row in found] != well:
                    yield f"{check}: {[tuple(row) for row in found[:3]]}"


INVARIANTS: tuple[Check, ...] = (
    the_database_is_sound,
    moves_are_legal,
    an_end_comes_once,
    attempts_are_in_step,
    reasons_are_told,
    results_are_true,
    records_are_up_to_date,
    nothing_is_held,
    no_process_is_left,
    no_folder_is_left,
    streams_are_whole,
    points_count_once,
    blobs_are_as_told,
    code_is_kept,
    uploads_are_what_they_are_called,
    blobs_have_owners,
)


def broken(home: Path) -> list[Broken]:
    """All that is not as it must be in a home; of one whose database can't be read, only that."""
    snapshot = Snapshot.of(home)
    try:
        with told_database_errors(snapshot.database.url):
            found = ((check.__name__, words) for check in INVARIANTS for words in check(snapshot))
            return [Broken(name, words[:MOST_CHARS]) for name, words in found]
    except InternalError as problem:
        return [Broken(the_database_is_sound.__name__, problem.message)]
    finally:
        snapshot.database.close()


def main(argv: list[str] | None = None) -> int:
    """Print each broken invariant in a line; 1 when there is one."""
    parser = argparse.ArgumentParser(prog="python -m atelier.testing.invariants", description=__doc__)
    parser.add_argument("home", type=Path, help="the ATELIER_HOME")
    found = broken(parser.parse_args(argv).home.absolute())
    for one in found:
        print(f"{one.invariant}: {one.words}")
    print(f"{len(INVARIANTS)} invariants, {len(found)} times broken.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
