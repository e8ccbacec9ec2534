"""Rows about load: many short runs, a store that holds many ended or waiting ones, fifty runs that print at once."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from atelier.client import Client
from atelier.following import follow_log
from atelier.records import RunState
from atelier.service.store import Capacity, Quota, Store
from atelier.testing.samples import GPU
from tests.benchmarks.big_store import STATES, crowd, fill, run_id_of
from tests.benchmarks.report import Row
from tests.benchmarks.sides import Sides, cpu_s, rss_mb, wait_for
from tests.benchmarks.works import timed
from tests.service_driver import SETTINGS, Service, service_over

SHORT_RUNS = 1000
WARM_UP_RUNS = 100
STORED_RUNS = (10_000, 100_000)
CROWDS = ((10_000, 1), (10_000, 1000), (100_000, 1), (100_000, 1000))
"""How many wait, and of how many owners."""

ASKED_TIMES = 15
PRINTING_RUNS = 50
LINES = 2000
LINES_A_SECOND = 100

_PRINT = f"""
import pathlib, time
while not pathlib.Path({{gate!r}}).exists():
    time.sleep(0.01)
began = time.monotonic()
for line in range({LINES}):
    print(line, time.time(), flush=True)
    time.sleep(max(0.0, began + (line + 1) / {LINES_A_SECOND} - time.monotonic()))
"""


def queue(sides: Sides) -> list[Row]:
    """A thousand short scripts through the queue, and the service's memory before and after."""
    script = sides.place("short") / "short.py"
    script.write_text("print('done')\n")
    with service_over(settings=SETTINGS.replace("cpu: 20m", "cpu: 250m")) as service:
        again = _again(service, script)
        _all_succeed(service, again, WARM_UP_RUNS)
        before_mb = _settled_mb(service)
        took_s = timed(lambda: _all_succeed(service, again, SHORT_RUNS))
        after_mb = _settled_mb(service)
    name = f"{SHORT_RUNS:,} short runs"
    return [
        Row(name, "runs/s", [SHORT_RUNS / took_s], "", [], "all succeed", True),
        Row(f"service after {name}", "MB", [after_mb], "before", [before_mb], "≤ 1.1 ×", after_mb <= 1.1 * before_mb),
    ]


def _again(service: Service, script: Path) -> Callable[[], str]:
    """What submits a script's run once more, as quickly as a client can."""
    spec = service.client.run(service.submit(script))["spec"]
    asked = {name: spec[name] for name in ("work", "bundle", "params", "machine")}
    return lambda: str(service.client.submit(asked)["id"])


def _all_succeed(service: Service, again: Callable[[], str], count: int) -> None:
    ids = {again() for _ in range(count)}
    live = ("created", "queued", "starting", "running")
    wait_for(
        lambda: not any(service.client.runs(state=state, limit=1)["items"] for state in live),
        1800,
        f"{count} runs to end",
        0.2,
    )
    missed = [
        run for run in service.client.newest_runs(limit=count) if run["id"] in ids and run["state"] != "succeeded"
    ]
    if missed:
        raise RuntimeError(f"{len(missed)} of {count} runs did not succeed: {missed[0]}")


def _settled_mb(service: Service) -> float:
    """Its memory once it has cleaned up after the last runs."""
    wait_for(lambda: not list(service.home.glob("run/attempts/*/*")), 60, "the last attempts to be cleaned up")
    time.sleep(2)
    assert service.process is not None
    return rss_mb(service.process.pid)


def stored(sides: Sides) -> list[Row]:
    """What a service is asked all the time, over a store that holds many ended runs."""
    return [row for count in STORED_RUNS for row in _stored(sides, count)]


def _stored(sides: Sides, count: int) -> list[Row]:
    script = sides.place("stored") / "short.py"
    script.write_text("print('done')\n")
    with service_over() as service:
        owner = service.finish(script).owner
        service.stop()
        store = Store(f"sqlite:///{service.home / 'db/atelier.sqlite'}")
        fill(store, owner, count)
        store.close()
        start_s = timed(service.start)
        answers = {name: _asked_ms(ask) for name, ask in _questions(service.client, run_id_of(count // 2)).items()}
    of = f"of {count:,} runs"
    return [
        Row(f"start of a service {of}", "s", [start_s], "", [], "≤ 2 s", start_s <= 2),
        *(
            Row(f"{name}, {of}", "ms", taken, "", [], "≤ 100 ms", statistics.median(taken) <= 100)
            for name, taken in answers.items()
        ),
    ]


def _questions(client: Client, run_id: str) -> dict[str, Callable[[], Any]]:
    states = (*sorted(set(STATES)), "queued", "lost")
    return {
        "first page": lambda: client.runs(limit=50),
        **{f"page of {state} ones": lambda state=state: client.runs(state=state, limit=50) for state in states},
        "one by its id": lambda: client.run(run_id),
        "one by a prefix": lambda: client.run(run_id[:8]),
        "begin of the events": lambda: list(islice(client.events(), 1)),
    }


def _asked_ms(ask: Callable[[], Any]) -> list[float]:
    ask()
    return [timed(ask) * 1000 for _ in range(ASKED_TIMES)]


def waiting(sides: Sides) -> list[Row]:
    """What the store is asked all the time where very many runs wait, and nothing can start."""
    return [row for count, owners in CROWDS for row in _waiting(sides.place("waiting"), count, owners)]


def _waiting(place: Path, count: int, owners: int) -> list[Row]:
    store = Store(f"sqlite:///{place / f'{count}-{owners}.sqlite'}")
    some = crowd(store, count, owners=owners)[count // 2]
    questions: dict[str, Callable[[], Any]] = {
        "a run and its place": lambda: store.runs.get(some),
        "a page of places": lambda: store.runs.page("owner0", states=[RunState.QUEUED], limit=50, before=None),
        "a claim where nothing is free": lambda: store.queue.claim(Capacity(), Quota()),
        "whether anything has changed": store.queue.stirred,
        "a claim": lambda: store.queue.claim(Capacity(devices={GPU: [str(n) for n in range(100)]}), Quota()),
    }
    answers = {name: _asked_ms(ask) for name, ask in questions.items()}
    store.close()
    of = f"{count:,} waiting runs of {owners:,} owners" if owners > 1 else f"{count:,} waiting runs of one owner"
    return [
        Row(f"{name}, {of}", "ms", taken, "", [], "≤ 100 ms", statistics.median(taken) <= 100)
        for name, taken in answers.items()
    ]


def printing(sides: Sides) -> list[Row]:
    """Fifty runs that print a hundred lines a second each: what is kept, how late a follower has it, what it costs."""
    place = sides.place("printing")
    gate = place / "gate"
    script = place / "printing.py"
    script.write_text(_PRINT.format(gate=str(gate)))
    with service_over() as service, _followed(service) as follow:
        again = _again(service, script)
        ids = [str(service.ids()[0]), *(again() for _ in range(PRINTING_RUNS - 1))]
        for run_id in ids:
            service.wait(run_id, "running", patience_s=120)
        assert service.process is not None
        pid, late_s = service.process.pid, follow(ids[0])
        before_s, began = cpu_s(pid), time.monotonic()
        gate.touch()
        for run_id in ids:
            service.wait(run_id, "succeeded", patience_s=180)
        load = (cpu_s(pid) - before_s) / (time.monotonic() - began)
        size_mb = rss_mb(pid)
        kept = sum(_numbers(service.log(run_id)) == list(range(LINES)) for run_id in ids)
    name = f"{PRINTING_RUNS} runs × {LINES_A_SECOND} lines/s"
    whole = PRINTING_RUNS * LINES
    return [
        Row(f"logs kept of {name}", "logs", [kept], "printed", [PRINTING_RUNS], "all", kept == PRINTING_RUNS),
        Row("a line's way to a follower then", "s", late_s, "", [], "≤ 2 s", statistics.median(late_s) <= 2),
        Row(
            "service then",
            "cores",
            [load],
            "",
            [],
            "≤ 1",
            load <= 1,
            f"{whole:,} lines, {size_mb:.0f} MB at their end.",
        ),
    ]


def _numbers(text: str) -> list[int]:
    return [int(line.split()[0]) for line in text.splitlines()]


@contextmanager
def _followed(service: Service) -> Iterator[Callable[[str], list[float]]]:
    """Begin to follow a run's log in a thread: the seconds after which its lines came, which fill as they come."""
    threads: list[threading.Thread] = []

    def follow(run_id: str) -> list[float]:
        late_s: list[float] = []
        threads.append(threading.Thread(target=_follow, args=(service.client, run_id, late_s)))
        threads[-1].start()
        return late_s

    yield follow
    for thread in threads:
        thread.join(60)


def _follow(client: Client, run_id: str, late_s: list[float]) -> None:
    rest = ""
    for piece in follow_log(client, run_id):
        now = time.time()
        *lines, rest = (rest + piece.text).split("\n")
        late_s += [now - float(json.loads(line.split()[1])) for line in lines]


ROWS = {"queue": queue, "stored": stored, "waiting": waiting, "printing": printing}
