"""The part of the store's suite on what live attempts tell: bytes counted once, curves, progress, signs of life."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, select

from atelier.errors import Conflict
from atelier.records import AttemptState, Progress
from atelier.service.store import Outcome, Store, parse_points
from atelier.service.store.curves import (
    FOLDED_TOGETHER,
    MOST_NAMES,
    MOST_NEWEST,
    MOST_POINTS,
    MOST_POINTS_TOGETHER,
    TOO_MANY_NAMES,
)
from atelier.service.store.schema import fresh_points
from atelier.service.store.streams import MORE_WARNINGS, Point
from atelier.testing.samples import BROKEN, DONE, beat, claimed, due_now, running

NOW_S = 1.8e9
STRANGE_LINES = (
    b'{"t": 1.0, "step": 2, "val',
    b"",
    b"\xff\xfe",
    b"[]",
    b"7",
    b"[" * 100_000,
    b'{"t": NaN, "step": 1, "values": {"x": 1}}',
    b'{"t": 1.0, "step": 1e400, "values": {"x": 1}}',
    b'{"t": 1.0, "step": ' + b"9" * 30 + b', "values": {"x": 1}}',
    b'{"t": 1.0, "step": 1, "values": [1]}',
    b'{"t": 1.0, "step": 1, "values": {"x": ' + b"9" * 400 + b"}}",
    b'{"t": 1.0, "step": 1, "values": {"x": "y"}}',
    b'{"t": 1.0, "step": 1, "values": {"a\\u0000b": 1, "c\\ud800d": 1, "": 1}}',
)


def points(name: str, values: list[float | None], first_step: int = 0) -> list[Point]:
    """Points of one metric, a step and a second apart."""
    return [Point(name, first_step + n, value, NOW_S + n) for n, value in enumerate(values)]


@contextmanager
def written_bytes(store: Store) -> Iterator[list[int]]:
    """Meanwhile, how many bytes of values each transaction that writes hands to the database."""
    engine, written = store.database.engine, [0]

    def count(connection: object, cursor: object, statement: str, parameters: object, *more: object) -> None:
        if statement.startswith(("INSERT", "UPDATE")):
            written[-1] += len(str(parameters))

    def end(connection: object) -> None:
        written.append(0)

    event.listen(engine, "before_cursor_execute", count)
    event.listen(engine, "commit", end)
    try:
        yield written
    finally:
        event.remove(engine, "before_cursor_execute", count)
        event.remove(engine, "commit", end)


@contextmanager
def dies_at_commit(store: Store, nth: int) -> Iterator[None]:
    """Meanwhile, the process is as good as killed when it ends its nth transaction."""
    engine, commits = store.database.engine, itertools.count(1)

    def end(connection: object) -> None:
        if next(commits) == nth:
            raise KeyboardInterrupt

    event.listen(engine, "commit", end)
    try:
        yield
    finally:
        event.remove(engine, "commit", end)


class StreamsSuite:
    """An append counts exactly once, whatever is repeated or missing; curves stay small and keep their ends."""

    @pytest.mark.parametrize("stream", ["log", "metrics"])
    def test_bytes_count_once(self, store: Store, stream: str) -> None:
        claim = running(store)

        def append(offset: int, length: int) -> int:
            return store.streams.appended(claim.run_id, claim.n, stream, offset=offset, length=length)

        assert append(0, 10) == 10
        assert append(0, 10) == 10, "a repeat was counted"
        assert append(4, 10) == 10, "an overlap was counted"
        assert append(11, 10) == 10, "bytes after a gap were taken"
        assert append(10, 0) == 10
        assert append(10, 5) == 15
        assert store.streams.size(claim.run_id, claim.n, stream) == 15
        assert store.streams.size("r-aaaaaaaaaa", 1, stream) == 0

    def test_the_two_streams_are_counted_apart(self, store: Store) -> None:
        claim = running(store)
        store.streams.appended(claim.run_id, claim.n, "log", offset=0, length=7)
        assert store.streams.size(claim.run_id, claim.n, "metrics") == 0
        assert store.runs.get(claim.run_id).attempts[0].log_size_bytes == 7

    def test_one_chunk_sent_by_several_at_once_counts_once(self, store: Store) -> None:
        claim, together = running(store), threading.Barrier(6)
        fresh = points("loss", [1.0, 2.0, 3.0])

        def append() -> int:
            together.wait(10)
            return store.streams.appended(claim.run_id, claim.n, "metrics", offset=0, length=10, points=fresh)

        with ThreadPoolExecutor(6) as pool:
            assert {each.result(timeout=30) for each in [pool.submit(append) for _ in range(6)]} == {10}
        assert store.streams.curves(claim.run_id)["loss"]["count"] == 3

    def test_an_ended_attempt_takes_nothing_more(self, store: Store) -> None:
        claim = running(store)
        store.streams.appended(claim.run_id, claim.n, "log", offset=0, length=3)
        store.runs.finish(claim.run_id, claim.n, DONE)
        with pytest.raises(Conflict) as caught:
            store.streams.appended(claim.run_id, claim.n, "log", offset=3, length=3)
        assert caught.value.code == "stale_attempt"
        assert store.streams.size(claim.run_id, claim.n, "log") == 3

    # -- curves ---------------------------------------------------------------------------------------------------
    def test_points_become_curves_and_newest_values(self, store: Store) -> None:
        claim = running(store)
        fresh = points("loss", [0.5, None, 0.25]) + points("a/b naïve", [1.0])
        store.streams.appended(claim.run_id, claim.n, "metrics", offset=0, length=9, points=fresh)
        curves = store.streams.curves(claim.run_id)
        assert curves["loss"]["points"] == [[0, 0.5, NOW_S], [1, None, NOW_S + 1], [2, 0.25, NOW_S + 2]]
        assert curves["loss"]["last"] == {"step": 2, "value": 0.25, "time": NOW_S + 2}
        assert list(curves) == ["a/b naïve", "loss"]
        assert store.runs.get(claim.run_id).metrics == {"loss": 0.25, "a/b naïve": 1.0}
        more = points("loss", [None], first_step=3)
        store.streams.appended(claim.run_id, claim.n, "metrics", offset=9, length=9, points=more)
        assert store.runs.get(claim.run_id).metrics == {"loss": None, "a/b naïve": 1.0}

    def test_points_of_a_repeat_are_not_folded_again(self, store: Store) -> None:
        claim = running(store)
        for _ in range(2):
            store.streams.appended(claim.run_id, claim.n, "metrics", offset=0, length=9, points=points("loss", [1.0]))
        assert store.streams.curves(claim.run_id)["loss"]["count"] == 1

    def test_names_are_bounded_and_that_is_said_once(self, store: Store) -> None:
        claim, size = running(store), 0
        for first, count in ((0, 60), (60, 2 * MOST_NAMES), (5, 3), (9 * MOST_NAMES, 5)):
            fresh = [Point(f"metric-{n:06d}", 1, n / 2, NOW_S) for n in range(first, first + count)]
            size = store.streams.appended(claim.run_id, claim.n, "metrics", offset=size, length=9, points=fresh)
        curves = store.streams.curves(claim.run_id)
        assert list(curves) == [f"metric-{n:06d}" for n in range(MOST_NAMES)]
        assert curves["metric-000006"]["count"] == 2
        run = store.runs.get(claim.run_id)
        assert run.metrics == {f"metric-{n:06d}": n / 2 for n in range(MOST_NEWEST)}
        assert run.warnings == [TOO_MANY_NAMES]

    def test_a_long_curve_is_thinned_evenly(self, store: Store) -> None:
        claim, size, total = running(store), 0, 0
        for n in (1, 499, 500, 1, 1500, 7, 2501):
            fresh = points("loss", [float(total + i) for i in range(n)], first_step=total)
            size = store.streams.appended(claim.run_id, claim.n, "metrics", offset=size, length=n, points=fresh)
            total += n
            curve = store.streams.curves(claim.run_id)["loss"]
            steps = [step for step, _, _ in curve["points"]]
            assert curve["count"] == total
            assert curve["last"]["step"] == total - 1
            assert min(total, MOST_POINTS // 2) <= len(steps) <= MOST_POINTS
            assert steps[0] == 0
            assert len({later - earlier for earlier, later in itertools.pairwise(steps)}) <= 1
            assert steps[-1] > 0.95 * (total - 1) - 1
            assert all(value == step for step, value, _ in curve["points"])

    def test_no_transaction_grows_with_what_a_run_has_logged(self, store: Store) -> None:
        """All wait while one writes: 1000 names with long curves, and no append or heartbeat writes much at once."""
        claim, size = running(store), 0
        names = [f"layer {n:03d}" for n in range(MOST_NAMES)]
        for first in range(0, 220, 20):
            fresh = [Point(name, step, step / 3, NOW_S) for step in range(first, first + 20) for name in names]
            size = store.streams.appended(claim.run_id, claim.n, "metrics", offset=size, length=9, points=fresh)
        with written_bytes(store) as written:
            for step in range(220, 245):
                fresh = [Point(name, step, step / 3, NOW_S) for name in names]
                size = store.streams.appended(claim.run_id, claim.n, "metrics", offset=size, length=9, points=fresh)
            beat(store, claim, usage={"cpu_percent": 9.0})
        assert len(written) > 25
        assert max(written) < 600_000, written
        assert sum(written) < 12_000_000, "all of it is written again and again"
        curves = store.streams.curves(claim.run_id)
        assert {curves[name]["count"] for name in names} == {245}
        assert {curves[name]["last"]["step"] for name in names} == {244}
        assert len(curves) == MOST_NAMES + 1
        told = sum(len(curve["points"]) for curve in curves.values())
        assert MOST_POINTS_TOGETHER / 2 <= told <= MOST_POINTS_TOGETHER
        alone = store.streams.curves(claim.run_id, "layer 007")
        assert alone == {"layer 007": curves["layer 007"]}

    def test_what_waits_is_told_as_what_is_folded(self, store: Store) -> None:
        claim, size = running(store), 0
        for first, count in ((0, 10), (10, 700), (710, 3), (713, 800)):
            fresh = points("loss", [None if n % 7 == 0 else n / 2 for n in range(first, first + count)], first)
            fresh += [Point("lr", None, 0.25, NOW_S + first)]
            size = store.streams.appended(claim.run_id, claim.n, "metrics", offset=size, length=9, points=fresh)
            before = store.streams.curves(claim.run_id)
            for _ in range(2):
                store.streams.fold(claim.run_id)
                assert store.streams.curves(claim.run_id) == before
        assert before["lr"]["points"] == [[None, 0.25, NOW_S + first] for first in (0, 10, 710, 713)]
        assert before["loss"]["points"][0] == [0, None, NOW_S]
        assert all(value == (None if step % 7 == 0 else step / 2) for step, value, _ in before["loss"]["points"])
        with store.database.read() as connection:
            assert connection.execute(select(fresh_points)).all() == []

    @pytest.mark.parametrize("nth", range(1, 7))
    def test_a_fold_that_is_cut_off_is_finished_by_the_next(self, store: Store, nth: int) -> None:
        claim = running(store)
        names = [f"layer {n}" for n in range(3 * FOLDED_TOGETHER + 10)]
        fresh = [Point(name, step, step / 3, NOW_S) for step in range(3) for name in names]
        store.streams.appended(claim.run_id, claim.n, "metrics", offset=0, length=9, points=fresh)
        before = store.streams.curves(claim.run_id)
        with dies_at_commit(store, nth), pytest.raises(KeyboardInterrupt):
            store.streams.fold(claim.run_id)
        assert store.streams.curves(claim.run_id) == before
        more = [Point(name, 3, 1.0, NOW_S) for name in names]
        store.streams.appended(claim.run_id, claim.n, "metrics", offset=9, length=9, points=more)
        store.streams.fold(claim.run_id)
        curves = store.streams.curves(claim.run_id)
        assert {tuple(step for step, _, _ in curves[name]["points"]) for name in names} == {(0, 1, 2, 3)}
        assert {curves[name]["count"] for name in names} == {4}

    def test_a_step_that_a_later_attempt_tells_again_is_there_once(self, store: Store) -> None:
        claim, size = running(store, retries=2), 0
        told = {1: (1, 6, 0.1), 2: (4, 8, 0.2), 3: (6, 11, 0.3)}
        for n, (first, end, value) in told.items():
            fresh = points("loss", [value] * (end - first), first) + points("once", [value], 1)
            fresh += [Point("none", None, value, NOW_S + n), Point(f"of {n}", n, value, NOW_S)]
            size = store.streams.appended(claim.run_id, n, "metrics", offset=0, length=9, points=fresh)
            assert size == 9
            before = store.streams.curves(claim.run_id)
            if n == 2:
                store.streams.fold(claim.run_id)
                assert store.streams.curves(claim.run_id) == before
            if n < 3:
                store.runs.finish(claim.run_id, n, BROKEN)
                due_now(store, claim.run_id)
                claim = claimed(store)
                store.runs.started(claim.run_id, claim.n, None)
        store.streams.fold(claim.run_id)
        curves = store.streams.curves(claim.run_id)
        assert curves == before
        values = [(step, value) for step, value, _ in curves["loss"]["points"]]
        assert values == [(step, 0.1) for step in (1, 2, 3)] + [(4, 0.2), (5, 0.2)] + [(n, 0.3) for n in range(6, 11)]
        assert curves["loss"]["count"] == 10
        assert [value for _, value, _ in curves["once"]["points"]] == [0.3]
        assert [value for _, value, _ in curves["none"]["points"]] == [0.1, 0.2, 0.3]
        assert [curves[f"of {n}"]["points"] for n in told] == [[[n, told[n][2], NOW_S]] for n in told]

    def test_a_long_curve_is_gone_on_with_where_a_later_attempt_began(self, store: Store) -> None:
        claim, total = running(store, retries=1), 3 * MOST_POINTS
        store.streams.appended(claim.run_id, 1, "metrics", offset=0, length=9, points=points("loss", [1.0] * total))
        store.streams.fold(claim.run_id)
        store.runs.finish(claim.run_id, 1, BROKEN)
        due_now(store, claim.run_id)
        store.runs.started(claim.run_id, claimed(store).n, None)
        again = total // 2
        for first in (again, again + total):
            fresh = points("loss", [2.0] * total, first)
            store.streams.appended(claim.run_id, 2, "metrics", offset=9 * (first > again), length=9, points=fresh)
        curve = store.streams.curves(claim.run_id)["loss"]
        steps = [step for step, _, _ in curve["points"]]
        assert steps == sorted(set(steps))
        assert MOST_POINTS // 2 <= len(steps) <= MOST_POINTS
        assert all(value == (2.0 if step >= again else 1.0) for step, value, _ in curve["points"])
        assert curve["last"]["step"] == again + 2 * total - 1
        assert again + 2 * total - curve["count"] in range(-8, 9)

    def test_readers_see_every_point_while_curves_are_folded(self, store: Store) -> None:
        claim, over = running(store), threading.Event()

        def read_on() -> int:
            reads, count = 0, 0
            while not over.is_set():
                curve = store.streams.curves(claim.run_id).get("loss", {"count": 0, "points": []})
                assert count <= curve["count"], "points went away"
                count = curve["count"]
                steps = [step for step, _, _ in curve["points"]]
                assert len({later - earlier for earlier, later in itertools.pairwise(steps)}) <= 1
                reads += 1
            return reads

        def fold_on() -> None:
            while not over.is_set():
                store.streams.fold(claim.run_id)

        with ThreadPoolExecutor(3) as pool:
            others: list[Future[Any]] = [pool.submit(read_on), pool.submit(fold_on), pool.submit(fold_on)]
            try:
                size = 0
                for n in range(60):
                    fresh = points("loss", [1.0] * 40, first_step=40 * n)
                    size = store.streams.appended(claim.run_id, claim.n, "metrics", offset=size, length=9, points=fresh)
            finally:
                over.set()
            for other in others:
                other.result(timeout=30)
        assert store.streams.curves(claim.run_id)["loss"]["count"] == 2400

    def test_what_no_recorder_writes_is_left_out(self, store: Store) -> None:
        """Code may write anything into its spool, and a full disk tears lines: the good ones count nevertheless."""
        claim = running(store)
        lines = [
            b'{"t": 1.0, "step": 1, "values": {"loss": 0.5}}',
            *STRANGE_LINES,
            b'{"t": 2.0, "step": null, "values": {"loss": "nan"}}',
            b'{"t": 3.0, "step": 3, "values": {"loss": 0.25}}',
        ]
        fresh = parse_points(b"\n".join(lines) + b"\n")
        assert fresh == [Point("loss", 1, 0.5, 1.0), Point("loss", None, None, 2.0), Point("loss", 3, 0.25, 3.0)]
        store.streams.appended(claim.run_id, claim.n, "metrics", offset=0, length=9, points=fresh)
        assert store.streams.curves(claim.run_id)["loss"]["count"] == 3

    def test_values_that_are_not_finite_are_null(self) -> None:
        for text in (b'"nan"', b'"inf"', b'"-inf"', b"NaN", b"Infinity", b"1e999"):
            line = b'{"t": 1.0, "step": 1, "values": {"x": %b}}\n' % text
            assert parse_points(line) == [Point("x", 1, None, 1.0)]

    # -- signs of life --------------------------------------------------------------------------------------------
    def test_a_heartbeat_brings_progress_use_and_warnings(self, store: Store) -> None:
        claim = running(store)
        progress = {"done": 2.0, "total": 5.0, "left_s": 3.5, "at": "2026-01-02T03:04:05.678Z"}
        before = store.runs.get(claim.run_id).attempts[0].last_seen_at
        beat(store, claim, progress=progress, usage={"cpu_percent": 99.5}, warnings=["a", "b", "a"])
        run = store.runs.get(claim.run_id)
        assert run.progress == Progress.model_validate(progress)
        assert run.attempts[0].usage == {"cpu_percent": 99.5}
        assert run.warnings == ["a", "b"]
        after = run.attempts[0].last_seen_at
        assert before is not None
        assert after is not None
        assert after > before

    def test_of_a_peak_only_the_newest_is_kept(self, store: Store) -> None:
        claim = running(store)
        for peak in (1.0, 2.0):
            beat(store, claim, usage={"memory_bytes": 1.0, "memory_peak_bytes": peak})
        assert store.runs.get(claim.run_id).attempts[0].usage["memory_peak_bytes"] == 2.0
        assert set(store.streams.curves(claim.run_id)) == {"system/memory_bytes"}

    def test_a_heartbeat_without_news_changes_no_view(self, store: Store) -> None:
        claim = running(store)
        progress = {"done": 1.0, "total": None, "left_s": None, "at": "2026-01-02T03:04:05.678Z"}
        beat(store, claim, progress=progress, warnings=["a"])
        change = store.runs.newest_change("ann#1")
        beat(store, claim, progress=progress, warnings=["a"])
        beat(store, claim)
        assert store.runs.newest_change("ann#1") == change
        assert store.runs.get(claim.run_id).progress is not None

    def test_warnings_are_bounded(self, store: Store) -> None:
        claim = running(store)
        for start in (0, 90):
            warnings = [f"warning {n}" for n in range(start, start + 90)]
            beat(store, claim, warnings=warnings)
        assert store.runs.get(claim.run_id).warnings == [f"warning {n}" for n in range(100)]

    def test_warnings_of_the_code_leave_room_for_others(self, store: Store) -> None:
        claim = running(store)
        for start in (0, 40, 0):
            beat(store, claim, code_warnings=[f"code {n}" for n in range(start, start + 40)])
        beat(store, claim, warnings=["the platform's"], code_warnings=["code 100", "code 3"])
        assert store.runs.get(claim.run_id).warnings == [
            *(f"code {n}" for n in range(50)),
            MORE_WARNINGS,
            "the platform's",
        ]

    def test_progress_stays_after_the_end_and_its_time_left_goes(self, store: Store) -> None:
        progress = {"done": 2.0, "total": 5.0, "left_s": 3.5, "at": "2026-01-02T03:04:05.678Z"}
        for state in (AttemptState.SUCCEEDED, AttemptState.FAILED, AttemptState.CANCELLED, AttemptState.TIMED_OUT):
            claim = running(store)
            beat(store, claim, progress=progress)
            run = store.runs.finish(claim.run_id, claim.n, Outcome(state))
            assert run.state.is_final
            assert run.progress is not None
            assert (run.progress.done, run.progress.total, run.progress.left_s) == (2.0, 5.0, None)

    def test_another_attempt_begins_without_progress(self, store: Store) -> None:
        claim = running(store, retries=1)
        beat(store, claim, progress={"done": 2.0, "total": 5.0, "left_s": 3.5, "at": "2026-01-02T03:04:05.678Z"})
        assert store.runs.finish(claim.run_id, claim.n, BROKEN).progress is None
