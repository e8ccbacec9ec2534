"""A home is backed up under a service with runs, and restored beside it, where its service tells the truth of them."""

from __future__ import annotations

from pathlib import Path

from atelier.records import Reason, RunState
from atelier.testing.invariants import broken
from tests.cli_driver import Terminal, wait_for
from tests.service_driver import service_over, write

ENDS = "print('ran')\nopen('out.txt', 'w').write('kept')\n"
GOES_ON = """
import time
for n in range(10_000):
    print("line", n, flush=True)
    time.sleep(0.05)
"""


def test_a_home_is_restored_and_its_runs_are_told_of_truthfully(tmp_path: Path) -> None:
    folder, code = tmp_path / "backup", tmp_path / "code"
    ends, goes_on = write(code / "a", train__py=ENDS), write(code / "b", train__py=GOES_ON)
    with service_over() as place:
        here = Terminal(place.home, tmp_path)
        ended = place.finish(ends)
        lives = place.submit(goes_on)
        place.wait_log(lives, "line 20\n")
        waits = place.submit(ends, machine="whole")
        pinned = here.json("pin", ended.id)
        assert pinned["pinned"]
        refused = here.type("rm", ended.id)
        assert refused.code == 1
        assert f"atelier pin {ended.id} --undo" in refused.err
        assert "pinned" in here.type("show", ended.id).out
        made = here.json("backup", str(folder))
        assert made["missing"] == []
        told = place.log(lives)
        assert here.json("backup", str(folder), "--verify")["faults"] == []
        in_use = here.type("restore", str(folder))
        assert in_use.code == 1
        assert "error[home_in_use]" in in_use.err
        assert place.process is not None
        assert f"'kill {place.process.pid}' ends it; its runs go on" in in_use.err
        other = tmp_path / "other"
        restored = Terminal(other, tmp_path).json("restore", str(folder))
        assert (restored["home"], restored["aside"]) == (str(other), None)
        with service_over(other) as again:
            assert set(again.ids()) == set(place.ids())
            kept = again.run(ended.id)
            assert kept == place.run(ended.id)
            assert kept.pinned
            assert again.log(ended.id) == "ran\n"
            assert again.content(ended.id, "out.txt") == b"kept"
            lost = again.wait(lives, "lost", patience_s=60)
            assert lost.reason is Reason.AGENT_LOST
            assert "from which its record was restored" in lost.message
            log = again.log(lives)
            assert log.startswith("line 0\nline 1\n")
            assert told.startswith(log)
            assert len(log) > 100
            assert again.wait(waits, "succeeded", patience_s=60).attempts[0].n == 1
            assert again.finish(ends).state is RunState.SUCCEEDED
            wait_for(lambda: broken(other) == [], f"{other} to be in order, as the invariants have it", timeout_s=60)
        assert place.run(lives).state is RunState.RUNNING, "a run of the other home was touched"
        assert place.run(waits).state is RunState.QUEUED
        assert here.type("pin", ended.id, "--undo").out == f"{ended.id} is pinned no more.\n"
        assert here.type("rm", ended.id).code == 0
        gone = here.type("restore", str(tmp_path / "nowhere"))
        assert gone.code == 2
        assert "error[not_a_backup]" in gone.err
