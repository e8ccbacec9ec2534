"""What waits, why it says so, and that it starts when it can: limits of users, GPUs, the machine, the queue's own."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from atelier.errors import Conflict, NotAllowed, NotFound, RefusedInput
from atelier.handle import RunHandle
from atelier.records import REASON_TEXT, Reason, Run
from tests.cli_driver import Terminal, wait_for
from tests.integration.conftest import GPUS
from tests.service_driver import SETTINGS, Service, service_over, write

GATED = """
    import os, pathlib, time
    print("begun", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
    while not pathlib.Path(GATE).exists():
        time.sleep(0.02)
"""


def gated(folder: Path) -> Path:
    """A script that runs until the file ``gate`` lies beside it."""
    return write(folder, train__py=GATED.replace("GATE", repr(str(folder / "gate"))))


def open_gate(work: Path) -> None:
    (work.parent / "gate").touch()


def waits_for(service: Service, run_id: str, reason: Reason) -> Run:
    """The run once it says that it waits for this reason."""
    wait_for(lambda: service.run(run_id).reason is reason, f"{run_id} to say that it {reason.value}")
    run = service.run(run_id)
    assert run.state == "queued"
    assert (run.message, run.hint) == REASON_TEXT[reason]
    assert run.queue_position is not None
    return run


LIMITS = "limits: {runs_per_user: 2, cpu_per_user: 100m, memory_per_user: 600Mi}\n"
SIZES = "{name: broad, cpu: 60m, memory: 64Mi}\n    - {name: deep, cpu: 20m, memory: 400Mi}"


@pytest.fixture(scope="module")
def limited() -> Iterator[Service]:
    """A service where one user may run two small runs, or one large one."""
    with service_over(settings=SETTINGS.replace("{name: gpu,", f"{SIZES}\n    - {{name: gpu,") + LIMITS) as place:
        yield place


@pytest.mark.parametrize(
    ("machine", "fitting"), [("tiny", 2), ("broad", 1), ("deep", 1)], ids=["runs", "cpu", "memory"]
)
def test_a_users_limit_is_waited_for(limited: Service, tmp_path: Path, machine: str, fitting: int) -> None:
    works = [gated(tmp_path / str(n)) for n in range(fitting + 1)]
    *holders, waiting = [limited.submit(work, machine=machine) for work in works]
    for run_id in holders:
        limited.wait_log(run_id, "begun")
    waits_for(limited, waiting, Reason.WAITS_FOR_USER_LIMIT)
    assert limited.run(waiting).queue_position == 1
    open_gate(works[0])
    assert limited.wait(holders[0]).state == "succeeded"
    limited.wait_log(waiting, "begun")
    assert limited.run(waiting).reason is None
    for work in works[1:]:
        open_gate(work)
    for run_id in (*holders, waiting):
        assert limited.wait(run_id).state == "succeeded"


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ({"machine": "whole"}, "over_user_limit"),
        ({"machine": "huge"}, "machine_not_available"),
        ({"machine": "gpu"}, "machine_not_available"),
        ({"machine": "tinny"}, "unknown_machine"),
        ({"image": "plane"}, "unknown_image"),
        ({"nodes": 2}, "too_many_nodes"),
        ({"retry_on": ["code_eror"]}, "unknown_reason"),
        ({"priority": 101}, "bad_request"),
        ({"project": "team"}, "project_not_allowed"),
    ],
)
def test_what_can_never_run_is_refused(limited: Service, tmp_path: Path, spec: dict[str, Any], code: str) -> None:
    before = limited.ids()
    with pytest.raises((RefusedInput, NotAllowed)) as caught:
        limited.submit(write(tmp_path, train__py="1"), **spec)
    assert caught.value.code == code
    assert caught.value.hint
    assert limited.ids() == before


# -- GPUs ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def one_gpu() -> Iterator[Service]:
    with service_over(more={"ATELIER_TEST_GPUS": GPUS[0]}) as place:
        yield place


def test_two_runs_on_one_gpu_take_turns(one_gpu: Service, tmp_path: Path) -> None:
    first, second, other = gated(tmp_path / "1"), gated(tmp_path / "2"), gated(tmp_path / "3")
    holder, waiting = one_gpu.submit(first, machine="gpu"), one_gpu.submit(second, machine="gpu")
    plain = one_gpu.submit(other)
    assert one_gpu.wait_log(holder, "begun") == f"begun {GPUS[0]}\n"
    assert one_gpu.wait_log(plain, "begun")
    waits_for(one_gpu, waiting, Reason.WAITS_FOR_ACCELERATOR)
    open_gate(first)
    assert one_gpu.wait(holder).state == "succeeded"
    assert one_gpu.wait_log(waiting, "begun") == f"begun {GPUS[0]}\n"
    for work in (second, other):
        open_gate(work)
    started, ended = one_gpu.wait(waiting).started_at, one_gpu.wait(holder).ended_at
    assert started is not None
    assert ended is not None
    assert started > ended
    assert one_gpu.wait(plain).state == "succeeded"


def test_a_gpu_comes_back_from_every_end(one_gpu: Service, tmp_path: Path) -> None:
    ends = {"fails": "1 / 0", "is killed": "import os\nos.kill(os.getpid(), 9)", "is quick": "1"}
    ids = [one_gpu.submit(write(tmp_path / name, train__py=code), machine="gpu") for name, code in ends.items()]
    cancelled = one_gpu.submit(gated(tmp_path / "cancelled"), machine="gpu")
    lost = one_gpu.submit(gated(tmp_path / "lost"), machine="gpu")
    for run_id in ids:
        assert one_gpu.wait(run_id).state in {"failed", "succeeded"}
    one_gpu.wait_log(cancelled, "begun")
    one_gpu.client.cancel(cancelled)
    one_gpu.wait_log(lost, "begun")
    for pid in one_gpu.agents(lost):
        os.kill(pid, signal.SIGKILL)
    assert one_gpu.wait(lost).state == "lost"
    assert one_gpu.finish(write(tmp_path / "last", train__py="1"), machine="gpu").state == "succeeded"


def test_each_run_sees_its_own_gpu(service: Service, tmp_path: Path) -> None:
    works = [gated(tmp_path / str(n)) for n in range(2)]
    ids = [service.submit(work, machine="gpu") for work in works]
    seen = {service.wait_log(run_id, "begun").split()[1] for run_id in ids}
    assert seen == set(GPUS)
    both = service.submit(gated(tmp_path / "both"), machine="gpus")
    waits_for(service, both, Reason.WAITS_FOR_ACCELERATOR)
    open_gate(works[0])
    service.wait(ids[0])
    assert service.run(both).state == "queued"
    open_gate(works[1])
    assert service.wait_log(both, "begun") == f"begun {','.join(GPUS)}\n"
    open_gate(tmp_path / "both/train.py")
    assert service.wait(both).state == "succeeded"


def test_a_run_without_gpu_sees_none(service: Service, tmp_path: Path) -> None:
    assert "GPU-" not in service.log(service.finish(write(tmp_path, train__py="import os\nprint(os.environ)")).id)


def places_seen(service: Service, run_id: str) -> Iterator[int | None]:
    """A run's place in the queue, whenever its events tell another one."""
    with (
        service.http as http,
        http.stream("GET", f"/services/atelier/api/v1/runs/{run_id}/events", timeout=15) as stream,
    ):
        last: int | None = 0
        for line in stream.iter_lines():
            told = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
            if "queue_position" in told and told["queue_position"] != last:
                yield (last := told["queue_position"])


def test_who_watches_sees_the_queue_move(one_gpu: Service, tmp_path: Path) -> None:
    work = gated(tmp_path)
    holder = one_gpu.submit(work, machine="gpu")
    one_gpu.wait_log(holder, "begun")
    ahead, between, last = (one_gpu.submit(work, machine="gpu") for _ in range(3))
    waits_for(one_gpu, last, Reason.WAITS_FOR_ACCELERATOR)
    places = places_seen(one_gpu, last)
    assert next(places) == 3
    one_gpu.client.cancel(between)
    assert next(places) == 2
    one_gpu.client.cancel(holder)
    assert next(places) == 1, "the one before it has started"
    open_gate(work)
    assert next(places) is None
    for run_id in (ahead, last):
        assert one_gpu.wait(run_id).state == "succeeded"


def test_a_users_own_kernel_is_named(one_gpu: Service, tmp_path: Path) -> None:
    with one_gpu.http as http:
        path = "/services/atelier/api/v1/leases/kernel-1"
        held = http.put(path, json={"machine": "gpu"})
        assert held.json()["devices"] == {"nvidia.com/gpu": [GPUS[0]]}
        run_id = one_gpu.submit(write(tmp_path, train__py="1"), machine="gpu")
        waits_for(one_gpu, run_id, Reason.WAITS_FOR_OWN_KERNEL)
        assert http.delete(path).status_code == 204
    assert one_gpu.wait(run_id).state == "succeeded"


# -- the machine, and the queue's own limit -----------------------------------------------------------------------
def test_a_full_machine_is_waited_for_until_the_queues_limit(service: Service, tmp_path: Path) -> None:
    first, second = gated(tmp_path / "1"), gated(tmp_path / "2")
    holder = service.submit(first, machine="whole")
    service.wait_log(holder, "begun", timeout_s=60)
    patient, impatient = service.submit(second), service.submit(gated(tmp_path / "3"), queue_timeout_s=1.5)
    waits_for(service, patient, Reason.WAITS_FOR_CAPACITY)
    assert service.run(impatient).queue_position == 2
    run = service.wait(impatient)
    assert (run.state, run.reason, run.attempts) == ("timed_out", "queue_deadline", [])
    assert (run.message, run.hint) == REASON_TEXT[Reason.QUEUE_DEADLINE]
    queued = service.submit(gated(tmp_path / "4"))
    assert service.client.cancel(queued)["state"] == "cancelled"
    assert service.run(queued).attempts == []
    open_gate(first)
    service.wait_log(patient, "begun")
    open_gate(second)
    assert service.wait(patient).state == "succeeded"


def test_a_run_starts_as_soon_as_there_is_room(service: Service, tmp_path: Path) -> None:
    """Neither a submit nor an end waits for the next tick of the loop."""
    work = write(tmp_path, train__py="1")
    service.finish(work, machine="whole")
    began = time.monotonic()
    ids = [service.submit(work, machine="whole") for _ in range(4)]
    runs = [service.wait(run_id) for run_id in ids]
    waits_s = []
    for before, after in pairwise(runs):
        assert before.ended_at is not None
        waits_s.append((after.attempts[0].created_at - before.ended_at).total_seconds())
    assert all(0 <= wait_s < 0.9 for wait_s in waits_s), waits_s
    assert time.monotonic() - began < 20


# -- the order of one's own runs ----------------------------------------------------------------------------------
def test_ones_own_runs_are_reordered_while_they_wait(one_gpu: Service, tmp_path: Path) -> None:
    """By the command line, by HTTP and by a handle; they start in the order that was made."""
    work = gated(tmp_path)
    holder = one_gpu.submit(work, machine="gpu")
    one_gpu.wait_log(holder, "begun")
    a, b, c, d = (one_gpu.submit(work, machine="gpu", priority=priority) for priority in (0, 0, 0, 3))

    def order() -> list[str]:
        placed = {run_id: one_gpu.run(run_id).queue_position or 0 for run_id in (a, b, c, d)}
        assert sorted(placed.values()) == [1, 2, 3, 4]
        return sorted(placed, key=placed.__getitem__)

    assert order() == [d, a, b, c]
    handle = RunHandle(one_gpu.client, one_gpu.client.run(c))
    assert handle.move("first").record.queue_position == 1
    assert order() == [c, d, a, b]
    assert handle.move(before=b).record.priority == 0
    assert order() == [d, a, c, b]
    assert handle.move(priority=-7).record.priority == -7
    terminal = Terminal(one_gpu.home, tmp_path)
    typed = terminal.type("move", a, "--before", d)
    assert (typed.code, typed.out) == (0, f"{a}  place 1, priority 3, waits for accelerator\n"), typed
    assert terminal.json("move", c, "--priority", "-9")["priority"] == -9
    assert order() == [a, d, b, c]
    listed = terminal.type("runs", "--state", "queued").out
    assert "place 4, priority -9, waits for accelerator" in listed
    for to, code in (({"before": holder}, "not_waiting"), ({"before": "r-zzzzzzzzzz"}, "unknown_run")):
        with pytest.raises((Conflict, NotFound)) as caught:
            one_gpu.client.move(a, to)
        assert caught.value.code == code
    with pytest.raises(Conflict) as caught_late:
        one_gpu.client.move(holder, "first")
    assert caught_late.value.code == "not_waiting"
    for wrong in ("middle", {"priority": 101}, {"before": a, "priority": 1}, {}, None, 3):
        with pytest.raises(RefusedInput):
            one_gpu.client.move(a, wrong)  # type: ignore[arg-type]
    open_gate(work)
    started = {run_id: one_gpu.wait(run_id).started_at for run_id in (a, b, c, d)}
    assert sorted(started, key=lambda run_id: str(started[run_id])) == [a, d, b, c]
