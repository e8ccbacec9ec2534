"""The suite of backends: attempts start once, are seen as they are, end with all they started, and lose nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

import pytest

from atelier.records import AttemptState, Run, RunState
from atelier.service.backends import Backend, Key, Launch, Sign

PATIENCE_S = 30.0
Found = TypeVar("Found")

SPAWN = """
import os, subprocess, sys, time
LOOP = "import signal, time\\nsignal.signal(15, signal.SIG_IGN)\\nwhile True: time.sleep(1)"
subprocess.Popen([sys.executable, "-c", LOOP])
subprocess.Popen([sys.executable, "-c", LOOP], start_new_session=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 3)
        os.execv(sys.executable, [sys.executable, "-c", LOOP])
    os._exit(0)
"""
"""Starts a child, a session leader and a double-forked daemon; all of them deaf to SIGTERM."""

WAIT = "print('begun', flush=True)\ntime.sleep(60)\n"
TELL = """
import os, time, atelier
job = atelier.current_run()
job.log(step=1, loss=0.5)
open("saved.txt", "w").write("saved")
job.save("saved.txt")
open("written.txt", "w").write("written")
"""


class Rig(Protocol):
    """A backend, with a real service behind it whose own loop stands still."""

    @property
    def backend(self) -> Backend:
        """The backend."""
        ...

    def restart(self) -> None:
        """Make a new backend over the same state, as a new service does."""
        ...

    def claim(self, code: str) -> Launch:
        """An attempt at a run of a script, claimed and not started."""
        ...

    def run(self, key: Key) -> Run:
        """The record of an attempt's run."""
        ...

    def log(self, key: Key) -> str:
        """The log of an attempt as the service has it."""
        ...

    def kept(self, key: Key) -> dict[str, bytes]:
        """Path → bytes of the artifacts of a run."""
        ...

    def living(self, key: Key) -> int:
        """How many processes of an attempt live, its agent among them."""
        ...

    def kill_agent(self, key: Key) -> None:
        """End an attempt's agent, and nothing else, as a crash does."""
        ...

    def close_service(self) -> None:
        """Let the service be away."""
        ...

    def open_service(self) -> None:
        """Let it be there again."""
        ...


def do(action: Coroutine[Any, Any, Found]) -> Found:
    """The result of a backend's method."""
    return asyncio.run(action)


def eventually(what: str, find: Callable[[], Any]) -> None:
    """Ask until the answer is true; fail with what was waited for."""
    deadline = time.monotonic() + PATIENCE_S
    while not find():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S:.0f} s for {what}"
        time.sleep(0.05)


class BackendContract:
    """What the docstring of `Backend` promises. Override `rig`."""

    @pytest.fixture
    def rig(self) -> Rig:
        """A backend with nothing in it."""
        raise NotImplementedError

    # -- what the tests say ---------------------------------------------------------------------------------------
    def sign(self, rig: Rig, key: Key) -> Sign:
        """What the backend sees of one attempt."""
        return do(rig.backend.observe([key]))[key]

    def begun(self, rig: Rig, code: str) -> Key:
        """An attempt that has been started and has printed ``begun``."""
        launch = rig.claim(code)
        do(rig.backend.start(launch))
        eventually(f"{launch.key} to begin", lambda: "begun" in rig.log(launch.key))
        return launch.key

    def ended(self, rig: Rig, key: Key) -> Run:
        """The record once the attempt has ended."""
        eventually(f"the end of {key}", lambda: rig.run(key).attempts[key.n - 1].state.is_final)
        return rig.run(key)

    # -- start and see --------------------------------------------------------------------------------------------
    def test_there_is_something_to_give(self, rig: Rig) -> None:
        capacity = rig.backend.capacity()
        assert (capacity.cpu or 1) > 0
        assert (capacity.memory_bytes or 1) > 0

    def test_what_was_never_started_is_absent(self, rig: Rig) -> None:
        key = Key("r-aaaaaaaaaa", 1)
        assert self.sign(rig, key) is Sign.ABSENT
        for act in (rig.backend.kill, rig.backend.clean):
            do(act(key))
        assert do(rig.backend.leftovers()) == []
        assert do(rig.backend.observe([])) == {}

    def test_a_started_attempt_runs_to_its_end(self, rig: Rig) -> None:
        launch = rig.claim("import time\ntime.sleep(0.5)\nprint('done')")
        do(rig.backend.start(launch))
        assert self.sign(rig, launch.key) is Sign.ALIVE
        assert do(rig.backend.leftovers()) == [launch.key]
        assert self.ended(rig, launch.key).state is RunState.SUCCEEDED
        assert rig.log(launch.key) == "done\n"
        eventually("the agent to go", lambda: self.sign(rig, launch.key) is Sign.GONE)
        for _ in range(2):
            do(rig.backend.clean(launch.key))
        assert self.sign(rig, launch.key) is Sign.ABSENT
        assert do(rig.backend.leftovers()) == []

    def test_a_second_start_starts_nothing(self, rig: Rig) -> None:
        launch = rig.claim("import time\nprint('begun', flush=True)\ntime.sleep(3)")
        backend = rig.backend

        async def start_thrice() -> None:
            await asyncio.gather(*(backend.start(launch) for _ in range(3)))

        do(start_thrice())
        eventually("the run to begin", lambda: rig.log(launch.key))
        do(rig.backend.start(launch))
        assert self.ended(rig, launch.key).state is RunState.SUCCEEDED
        assert rig.log(launch.key) == "begun\n"
        assert len(rig.run(launch.key).attempts) == 1

    def test_what_was_started_before_a_restart_is_seen(self, rig: Rig) -> None:
        alive, gone = self.begun(rig, "import time\n" + WAIT), self.begun(rig, "import time\n" + WAIT)
        rig.kill_agent(gone)
        rig.restart()
        eventually("the sign of the dead one", lambda: self.sign(rig, gone) is Sign.GONE)
        assert self.sign(rig, alive) is Sign.ALIVE
        assert sorted(do(rig.backend.leftovers())) == sorted([alive, gone])
        do(rig.backend.kill(alive))
        assert rig.living(alive) == 0

    def test_many_are_seen_in_one_look(self, rig: Rig) -> None:
        alive, gone = self.begun(rig, "import time\n" + WAIT), self.begun(rig, "import time\n" + WAIT)
        do(rig.backend.kill(gone))
        absent = Key("r-aaaaaaaaaa", 1)
        expected = {alive: Sign.ALIVE, gone: Sign.GONE, absent: Sign.ABSENT}
        eventually("all three signs", lambda: do(rig.backend.observe(list(expected))) == expected)
        assert sorted(do(rig.backend.leftovers())) == sorted([alive, gone])

    # -- kill -----------------------------------------------------------------------------------------------------
    def test_a_kill_ends_all_that_was_started(self, rig: Rig) -> None:
        key = self.begun(rig, SPAWN + WAIT)
        assert rig.living(key) >= 5
        do(rig.backend.kill(key))
        assert rig.living(key) == 0
        assert self.sign(rig, key) is Sign.GONE
        do(rig.backend.kill(key))

    def test_an_end_ends_all_that_was_started(self, rig: Rig) -> None:
        key = self.begun(rig, SPAWN + "print('begun')")
        assert self.ended(rig, key).state is RunState.SUCCEEDED
        eventually("the last process to go", lambda: rig.living(key) == 0)

    def test_one_kill_is_no_other(self, rig: Rig) -> None:
        first, second = self.begun(rig, "import time\n" + WAIT), self.begun(rig, "import time\n" + WAIT)
        do(rig.backend.kill(first))
        assert self.sign(rig, second) is Sign.ALIVE
        assert rig.living(second) >= 2

    # -- what a dead agent has left -------------------------------------------------------------------------------
    def test_what_a_dead_agent_left_is_brought_in(self, rig: Rig) -> None:
        key = self.begun(rig, SPAWN + TELL + WAIT.replace("begun", "begun', 'in the middle"))
        rig.kill_agent(key)
        eventually("the agent to go", lambda: self.sign(rig, key) is Sign.GONE)
        do(rig.backend.kill(key))
        do(rig.backend.recover(key))
        run = self.ended(rig, key)
        assert (run.state, run.attempts[0].state) == (RunState.LOST, AttemptState.LOST)
        assert rig.log(key) == "begun in the middle\n"
        assert run.metrics["loss"] == 0.5
        kept = rig.kept(key)
        assert (kept["saved.txt"], kept["written.txt"]) == (b"saved", b"written")
        eventually("the last process to go", lambda: rig.living(key) == 0)
        assert self.sign(rig, key) is Sign.GONE

    def test_what_a_dead_agent_had_no_time_to_tell_is_told(self, rig: Rig) -> None:
        """The work ended well while the service was away; then the agent died. It has not been for nothing."""
        key = self.begun(rig, TELL + "print('begun', flush=True)\ntime.sleep(1)\nprint('done')")
        rig.close_service()
        eventually("the work to end", lambda: rig.living(key) == 1)
        time.sleep(0.5)
        rig.kill_agent(key)
        rig.open_service()
        eventually("the agent to go", lambda: self.sign(rig, key) is Sign.GONE)
        do(rig.backend.recover(key))
        assert self.ended(rig, key).state is RunState.SUCCEEDED
        assert rig.log(key) == "begun\ndone\n"
        assert rig.kept(key)["written.txt"] == b"written"

    def test_what_is_set_aside_stays_until_its_run_is_forgotten(self, rig: Rig) -> None:
        key = self.begun(rig, WAIT.replace("time.sleep", "import time; time.sleep"))
        do(rig.backend.kill(key))
        eventually("the agent to go", lambda: self.sign(rig, key) is Sign.GONE)
        assert do(rig.backend.result(key)) is None
        place = do(rig.backend.set_aside(key))
        assert place is not None
        assert self.sign(rig, key) is Sign.ABSENT
        do(rig.backend.clean(key))
        rig.restart()
        assert key not in do(rig.backend.leftovers())
        do(rig.backend.clear_aside(3600, lambda run_id: run_id == key.run_id))
        assert do(rig.backend.set_aside(key)) == place
        do(rig.backend.clear_aside(3600, lambda run_id: run_id != key.run_id))
        assert do(rig.backend.set_aside(key)) is None

    def test_two_recoveries_bring_in_once(self, rig: Rig) -> None:
        key = self.begun(rig, TELL + WAIT)
        do(rig.backend.kill(key))
        for _ in range(2):
            do(rig.backend.recover(key))
        run = self.ended(rig, key)
        eventually("the recoveries to end", lambda: self.sign(rig, key) is Sign.GONE)
        assert rig.run(key) == run
        assert rig.log(key) == "begun\n"

    def test_an_agent_bears_a_service_that_is_away(self, rig: Rig) -> None:
        key = self.begun(rig, "import time\nprint('begun', flush=True)\ntime.sleep(1)\nprint('meanwhile')")
        rig.close_service()
        eventually("the work to end", lambda: rig.living(key) == 1)
        assert self.sign(rig, key) is Sign.ALIVE
        rig.open_service()
        assert self.ended(rig, key).state is RunState.SUCCEEDED
        assert rig.log(key) == "begun\nmeanwhile\n"
