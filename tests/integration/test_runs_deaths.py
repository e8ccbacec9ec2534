"""Whatever dies, the run goes on or says so, and its record is whole."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import nbformat
import pytest

from atelier.testing.backends import SPAWN
from tests.cli_driver import notebook, wait_for
from tests.service_driver import SETTINGS, Service, lives, service_over, write

STEPS = """
    import os, pathlib, time, atelier
    job = atelier.current_run()
    for step in range(3):
        print("step", step, flush=True)
        job.log(step=step, loss=step)
        job.progress(step + 1, total=3)
        pathlib.Path(f"{step}.txt").write_text(str(step))
        job.save(f"{step}.txt", name=f"saved-{step}.txt")
        while not pathlib.Path(GATE + str(step)).exists():
            time.sleep(0.02)
"""


def stepwise(folder: Path, before: str = "") -> Path:
    """A script that waits after each of its three steps until the file ``gate<step>`` is there."""
    return write(folder, train__py=dedent(before) + dedent(STEPS).replace("GATE", repr(str(folder / "gate"))))


def open_gates(folder: Path, *steps: int) -> None:
    for step in steps:
        (folder / f"gate{step}").touch()


def kill(pids: list[int]) -> None:
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def kernels(service: Service, run_id: str) -> list[int]:
    """Ids of the kernel of an attempt."""
    words = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in service.of_attempt(run_id)}
    return [pid for pid, line in words.items() if b"kernel_launcher" in line]


# -- the service --------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def own() -> Iterator[Service]:
    """A service that is killed and started again; each test leaves it running."""
    with service_over() as place:
        yield place


def test_a_killed_service_loses_nothing(own: Service, tmp_path: Path) -> None:
    run_id = own.submit(stepwise(tmp_path))
    queued = own.submit(write(tmp_path / "queued", train__py="print('later')"), machine="whole")
    own.wait_log(run_id, "step 0")
    agents = own.agents(run_id)
    own.kill()
    open_gates(tmp_path, 0)
    wait_for((own.attempt_folder(run_id) / "work/1.txt").exists, "the second step, without a service")
    own.start()
    own.wait_log(run_id, "step 1")
    assert own.agents(run_id) == agents, "the new service did not adopt the agent"
    own.kill()
    open_gates(tmp_path, 1, 2)
    wait_for((own.attempt_folder(run_id) / "result.json").exists, "the end of the work, without a service")
    own.start()
    run = own.wait(run_id)
    assert (run.state, len(run.attempts)) == ("succeeded", 1)
    assert own.log(run_id) == "step 0\nstep 1\nstep 2\n"
    assert [point[:2] for point in own.client.metrics(run_id, name="loss")["points"]] == [[n, n] for n in range(3)]
    assert own.client.metrics(run_id)["names"]["loss"]["count"] == 3
    kept = {path for path in own.artifacts(run_id) if not path.startswith("tensorboard/")}
    assert kept == {f"{kind}{step}.txt" for kind in ("", "saved-") for step in range(3)}
    assert run.progress is not None
    assert run.progress.done == 3
    assert own.wait(queued).state == "succeeded"
    blobs = own.home / "blobs/runs" / run_id / "attempts/1"
    assert (blobs / "log.txt").read_text() == own.log(run_id)
    assert sorted(path.name for path in blobs.iterdir()) == ["log.txt", "metrics.jsonl", "result.json"]
    record = own.home / "blobs/runs" / run_id / "run.json"
    wait_for(lambda: json.loads(record.read_text())["state"] == "succeeded", "the record on disk to say so too")


def test_a_service_that_stops_leaves_its_runs_alone(own: Service, tmp_path: Path) -> None:
    run_id = own.submit(stepwise(tmp_path))
    own.wait_log(run_id, "step 0")
    assert own.stop() == 0
    assert not (own.home / "run/service.json").exists()
    assert not (own.home / "run/service.sock").exists()
    open_gates(tmp_path, 0, 1, 2)
    wait_for((own.attempt_folder(run_id) / "result.json").exists, "the end of the work, without a service")
    own.start()
    assert own.wait(run_id).state == "succeeded"


def test_a_cancel_reaches_a_run_whose_service_was_replaced(own: Service, tmp_path: Path) -> None:
    run_id = own.submit(stepwise(tmp_path))
    own.wait_log(run_id, "step 0")
    own.client.cancel(run_id)
    own.kill()
    own.start()
    assert own.wait(run_id).state == "cancelled"


def test_a_run_keeps_its_time_limit_without_a_service(own: Service, tmp_path: Path) -> None:
    run_id = own.submit(stepwise(tmp_path), timeout_s=2)
    own.wait_log(run_id, "step 0")
    pids = own.of_attempt(run_id)
    own.kill()
    wait_for((own.attempt_folder(run_id) / "result.json").exists, "the agent to enforce the limit")
    assert sum(map(lives, pids)) <= 1
    own.start()
    run = own.wait(run_id)
    assert (run.state, run.reason) == ("timed_out", "deadline")


def test_a_later_attempt_without_a_service_has_the_time_that_is_left(own: Service, tmp_path: Path) -> None:
    code = "import atelier, time\nprint('begun', flush=True)\n"
    code += "time.sleep(3 if atelier.current_run().attempt == 1 else 60)\n1 / 0"
    run_id = own.submit(write(tmp_path, train__py=code), timeout_s=8, retries=1)
    wait_for(lambda: len(own.run(run_id).attempts) > 1, "a second attempt")
    own.wait_log(run_id, "begun", attempt=2)
    own.kill()
    wait_for((own.attempt_folder(run_id, 2) / "result.json").exists, "the agent to enforce what is left of the limit")
    own.start()
    run = own.wait(run_id)
    assert (run.state, run.reason) == ("timed_out", "deadline")
    assert [attempt.state for attempt in run.attempts] == ["failed", "timed_out"]
    assert run.attempts[1].started_at is not None
    result = json.loads((own.home / f"blobs/runs/{run_id}/attempts/2/result.json").read_text())
    assert (result["state"], result["reason"]) == ("timed_out", "deadline")


# -- the agent ----------------------------------------------------------------------------------------------------
def test_a_killed_agent_is_told_and_ends_its_work(service: Service, tmp_path: Path) -> None:
    run_id = service.submit(stepwise(tmp_path, before=SPAWN))
    service.wait_log(run_id, "step 0")
    pids = service.of_attempt(run_id)
    assert len(pids) >= 5
    kill(service.agents(run_id))
    run = service.wait(run_id)
    assert (run.state, run.reason) == ("lost", "agent_lost")
    assert run.attempts[0].state == "lost"
    assert service.log(run_id) == "step 0\n"
    assert run.metrics["loss"] == 0
    assert {"0.txt", "saved-0.txt"} <= set(service.artifacts(run_id))
    wait_for(lambda: not any(map(lives, pids)), "the last descendant to end")
    wait_for(lambda: not service.attempt_folder(run_id).exists(), "its folder to go")


HIDDEN = """
    import pathlib, subprocess
    for word in (["env", "-i"], ["env", "-i", "setsid"]):
        subprocess.run([*word, "sh", "-c", f"sleep 1000 & echo $! >> {FOLDER}/hidden"])
        subprocess.Popen([*word, "sh", "-c", f"echo $$ >> {FOLDER}/hidden; sleep 1000"])
"""


def test_what_a_killed_agents_work_hid_ends_and_that_of_another_run_goes_on(own: Service, tmp_path: Path) -> None:
    """Without the attempt's mark in its environment, in a session of its own, its parent gone."""
    hidden = {}
    for name in ("one", "two"):
        folder = tmp_path / name
        before = HIDDEN.replace("{FOLDER}", str(folder))
        hidden[own.submit(stepwise(folder, before=before))] = folder / "hidden"
    for path in hidden.values():
        wait_for(lambda path=path: path.exists() and len(path.read_text().split()) == 4, "four processes to hide")
    (first, ended), (second, living) = ((run_id, path.read_text().split()) for run_id, path in hidden.items())
    assert {int(pid) for pid in [*ended, *living]}.isdisjoint([*own.of_attempt(first), *own.of_attempt(second)])

    kill(own.agents(first))
    assert own.wait(first).state == "lost"
    wait_for(lambda: not any(lives(int(pid)) for pid in ended), "the hidden ones to end")
    assert all(lives(int(pid)) for pid in living)

    own.client.cancel(second, now=True)
    own.wait(second)
    wait_for(lambda: not any(lives(int(pid)) for pid in living), "those of the other run to end with it")


def test_a_killed_agent_is_replaced_where_there_are_retries(service: Service, tmp_path: Path) -> None:
    run_id = service.submit(stepwise(tmp_path), retries=1)
    service.wait_log(run_id, "step 0")
    kill(service.agents(run_id))
    open_gates(tmp_path, 0, 1, 2)
    run = service.wait(run_id)
    assert run.state == "succeeded"
    assert [attempt.state for attempt in run.attempts] == ["lost", "succeeded"]
    assert service.log(run_id, 1) == "step 0\n"


def test_a_killed_agent_of_a_notebook_leaves_it_readable(service: Service, tmp_path: Path) -> None:
    cells = ("import time\nprint('first')\ntime.sleep(1.2)", "print('second', flush=True)\ntime.sleep(60)")
    run_id = service.submit(write(tmp_path, train__ipynb=notebook(*cells)))
    service.wait_log(run_id, "second")
    wait_for(lambda: '"second' in service.get(f"/runs/{run_id}/notebook").text, "the notebook with what goes on")
    kernel = kernels(service, run_id)
    kill(service.agents(run_id))
    assert service.wait(run_id).state == "lost"
    made = nbformat.reads(service.get(f"/runs/{run_id}/notebook").text, as_version=4)
    assert [cell.outputs[0].text for cell in made.cells] == ["first\n", "second\n"]
    wait_for(lambda: not any(map(lives, kernel)), "the kernel to end")


# -- the folder ---------------------------------------------------------------------------------------------------
def test_agents_whose_folders_are_gone_end_with_their_work(own: Service, tmp_path: Path) -> None:
    """One whose work goes on and one that waits to deliver its end, to a service that never comes back."""
    working, ended = own.submit(stepwise(tmp_path, before=SPAWN)), own.submit(stepwise(tmp_path / "2"))
    for run_id in (working, ended):
        own.wait_log(run_id, "step 0")
    own.kill()
    open_gates(tmp_path / "2", 0, 1, 2)
    wait_for((own.attempt_folder(ended) / "result.json").exists, "the end of the work, without a service")
    pids = [pid for run_id in (working, ended) for pid in {*own.of_attempt(run_id), *own.agents(run_id)}]
    assert len(pids) >= 6
    shutil.rmtree(own.home / "run/attempts")
    wait_for(lambda: not any(map(lives, pids)), "both agents and all that they had started to end", timeout_s=30)
    own.start()
    for run_id in (working, ended):
        run = own.wait(run_id)
        assert (run.state, run.reason) == ("lost", "agent_lost")
        assert "folder" in run.message


def test_a_frozen_agent_goes_on_where_it_was(service: Service, tmp_path: Path) -> None:
    """As a paused container, a suspended computer or a debugger does it; for longer than a folder may be missing."""
    run_id = service.submit(stepwise(tmp_path))
    service.wait_log(run_id, "step 0")
    (agent,) = service.agents(run_id)
    os.kill(agent, signal.SIGSTOP)
    open_gates(tmp_path, 0)
    time.sleep(6)
    os.kill(agent, signal.SIGCONT)
    service.wait_log(run_id, "step 1")
    open_gates(tmp_path, 1, 2)
    run = service.wait(run_id)
    assert (run.state, len(run.attempts)) == ("succeeded", 1)
    assert "step 2" in service.log(run_id)


FROZEN = """
    import pathlib, time, atelier
    job, gate = atelier.current_run(), pathlib.Path(GATE)
    print("begun", flush=True)
    while not gate.exists():
        time.sleep(0.02)
    for number in range(20):
        pathlib.Path("part").write_text(str(number))
        job.save("part", name=f"saved/{job.attempt}-{number}")
        job.log(step=number, loss=number)
    gate.with_name("told").touch()
    while job.attempt == 1:
        time.sleep(0.1)
"""


def freeze(service: Service, folder: Path, **spec: Any) -> str:
    """A run whose agent was stopped, and whose work has told things that the agent has not read."""
    gate = folder / "gate"
    run_id = service.submit(write(folder, train__py=FROZEN.replace("GATE", repr(str(gate)))), **spec)
    service.wait_log(run_id, "begun")
    for agent in service.agents(run_id):
        os.kill(agent, signal.SIGSTOP)
    gate.touch()
    wait_for((folder / "told").exists, "the work to tell all")
    return run_id


def assert_brought_in(service: Service, run_id: str) -> None:
    """All that the first attempt told is there, and the first who came for it has brought it."""
    assert {f"saved/1-{number}" for number in range(20)} <= set(service.artifacts(run_id))
    assert [point[:2] for point in service.client.metrics(run_id, name="loss")["points"]] == [[n, n] for n in range(20)]
    with sqlite3.connect(service.home / "db/atelier.sqlite") as store:
        (tries,) = store.execute("SELECT recoveries FROM attempts WHERE run_id = ? AND n = 1", (run_id,)).fetchone()
    store.close()
    assert tries == 1


def test_an_agent_that_stays_frozen_is_replaced(tmp_path: Path) -> None:
    """It holds its lock, and would hold its run for ever."""
    with service_over(settings=SETTINGS + "limits: {silence: 3s}\n") as impatient:
        run_id = freeze(impatient, tmp_path, retries=1)
        first = impatient.of_attempt(run_id)
        run = impatient.wait(run_id)
        assert (run.state, [attempt.state for attempt in run.attempts]) == ("succeeded", ["lost", "succeeded"])
        assert_brought_in(impatient, run_id)
        assert not any(map(lives, first))


def test_a_run_whose_agent_is_frozen_can_be_cancelled_and_loses_nothing(service: Service, tmp_path: Path) -> None:
    """However often the service looks meanwhile: who brings in what was left is no work that goes on for too long."""
    run_id = freeze(service, tmp_path)
    service.client.cancel(run_id, now=True)
    deadline = time.monotonic() + 60
    while not service.run(run_id).state.is_final:
        assert time.monotonic() < deadline, "the run did not end"
        service.client.cancel(run_id, now=True)
        time.sleep(0.05)
    assert service.run(run_id).state == "cancelled"
    assert_brought_in(service, run_id)


# -- the kernel, and all at once ----------------------------------------------------------------------------------
def test_a_killed_kernel_names_its_cell(service: Service, tmp_path: Path) -> None:
    cells = ("print('first')", "import time\nprint('second', flush=True)\ntime.sleep(60)", "print('never')")
    run_id = service.submit(write(tmp_path, train__ipynb=notebook(*cells, parameters="n = 1")), {"n": 2})
    service.wait_log(run_id, "second")
    kill(kernels(service, run_id))
    run = service.wait(run_id)
    assert (run.state, run.reason) == ("failed", "killed")
    assert "cell 3" in run.message
    assert "second" in service.log(run_id)
    assert "never" not in service.log(run_id)
    assert run.attempts[0].exit_code == -signal.SIGKILL


def test_all_killed_at_once_is_told(own: Service, tmp_path: Path) -> None:
    script = own.submit(stepwise(tmp_path, before=SPAWN))
    book = own.submit(
        write(tmp_path / "nb", train__ipynb=notebook("import time\nprint('begun', flush=True)\ntime.sleep(60)"))
    )
    own.wait_log(script, "step 0")
    own.wait_log(book, "begun")
    assert own.process is not None
    pids = [own.process.pid, *own.of_attempt(script), *own.of_attempt(book)]
    kill(pids)
    own.process.wait(timeout=10)
    own.start()
    for run_id, said in ((script, "step 0\n"), (book, "begun\n")):
        run = own.wait(run_id)
        assert (run.state, run.reason) == ("lost", "agent_lost")
        assert own.log(run_id) == said
    assert not any(map(lives, pids))
    assert own.finish(write(tmp_path / "next", train__py="1")).state == "succeeded"


def test_what_an_old_boot_left_is_swept(own: Service, tmp_path: Path) -> None:
    """A folder of an attempt that nobody knows, and a process of an attempt that is over."""
    run = own.finish(write(tmp_path, train__py="1"))
    wait_for(lambda: not own.attempt_folder(run.id).exists(), "its folder to go")
    own.stop()
    for folder in (own.attempt_folder(run.id), own.attempt_folder("r-zzzzzzzzzz", 3)):
        folder.mkdir(parents=True)
        (folder / "orders.json").write_text("{}")
    own.start()
    wait_for(lambda: not list(own.home.glob("run/attempts/*")), "the leftovers to go")
    assert own.run(run.id).state == "succeeded"


def half_submit(service: Service, like: str, run_id: str, bundle: str) -> None:
    """Put a row into the database as a submit leaves it that a crash has cut off a minute ago."""
    with contextlib.closing(sqlite3.connect(service.home / "db/atelier.sqlite", timeout=20)) as database:
        columns = [row[1] for row in database.execute("pragma table_info(runs)")]
        spec = f"replace(spec, '{service.run(like).spec.bundle}', '{bundle}')"
        changed = {
            "id": f"'{run_id}'",
            "state": "'created'",
            "attempt": "0",
            "epoch": "0",
            "ended_at": "null",
            "spec": spec,
        }
        changed["created_at"] = "datetime('now', '-1 minute')"
        values = ", ".join(changed.get(column, f'"{column}"') for column in columns)
        names = ", ".join(f'"{column}"' for column in columns)
        database.execute(f"insert into runs ({names}) select {values} from runs where id = ?", (like,))
        database.commit()


def test_a_submit_that_a_crash_cut_in_two_is_completed(own: Service, tmp_path: Path) -> None:
    """The row is there, the bundle's copy and the move to the queue are not: found at a start, and by the loop."""
    first = own.finish(write(tmp_path, train__py="print('ran')"))
    for run_id, restarts in (("r-aaaaaaaaaa", True), ("r-bbbbbbbbbb", False)):
        half_submit(own, first.id, run_id, first.spec.bundle)
        if restarts:
            own.kill()
            own.start()
        run = own.wait(run_id)
        assert run.state == "succeeded"
        assert own.log(run.id) == "ran\n"


def test_a_submit_whose_code_never_came_is_given_up(own: Service, tmp_path: Path) -> None:
    first = own.finish(write(tmp_path, train__py="1"))
    half_submit(own, first.id, "r-cccccccccc", "0" * 64)
    run = own.wait("r-cccccccccc")
    assert (run.state, run.reason, run.attempts) == ("failed", "start_failed", [])
    assert own.finish(write(tmp_path / "next", train__py="1")).state == "succeeded"
