"""What is left to do when the work has ended: keep its files, ship the rest, stamp the end."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from atelier.agent.events import OVER
from atelier.agent.heart import Heart
from atelier.agent.link import Link
from atelier.agent.outcome import MOST_MESSAGE_BYTES, Result, shortened
from atelier.agent.outputs import readable, written
from atelier.agent.place import Place
from atelier.agent.retrying import until_answered
from atelier.agent.shipper import Shipper
from atelier.agent.worktime import WorkTime
from atelier.crash_points import crash_point
from atelier.errors import AtelierError
from atelier.local.plain import write_whole

EVENT_FILE_TIMEOUT_S = 60.0
NAMED_UNKEPT = 5


class Delivery:
    """Delivers an attempt's end, by the agent that ran it or by one that takes over; each step may be done again."""

    def __init__(self, link: Link, place: Place, heart: Heart, shipper: Shipper, *, work_time: WorkTime) -> None:
        self._link, self._place, self._heart, self._shipper = link, place, heart, shipper
        self._work_time = work_time
        self.is_hurried: Callable[[], bool] = lambda: False
        """Whether the user waits for the end, and for no more files."""

    def note(self, result: Result) -> dict[str, Any]:
        """Write the end to disk before the service is told; a full disk only costs the one who would take over."""
        told = result.as_json() | {"ran_s": self._work_time.seconds}
        crash_point("agent.result.before")
        try:
            write_whole(self._place.result, json.dumps(told).encode())
        except OSError as problem:
            self._heart.warn(f"The attempt's end could not be written to the disk: {problem.strerror}.")
        crash_point("agent.result.after")
        return told

    def run(self, result: dict[str, Any]) -> None:
        """Deliver everything, and the end last; returns when the service has it, or takes no more of this attempt."""
        crash_point("agent.ended.before")
        self._call("/ended", {"ran_s": self._work_time.seconds})
        crash_point("agent.ended.after")
        if result.get("reason") == "disk_full":
            self._make_room()
        else:
            self._keep_written()
        self._keep_event_file()
        crash_point("agent.drain.before")
        self._shipper.drain()
        crash_point("agent.drain.after")
        self._heart.settle()
        crash_point("agent.settle.after")
        self._finish(result)
        crash_point("agent.finish.after")

    def _finish(self, result: dict[str, Any]) -> None:
        """Tell the end; state and reason alone where the service does not take what else is told of it."""
        try:
            self._call("/finish", result)
        except AtelierError as problem:
            if problem.code in OVER:
                raise
            print(f"error[{problem.code}]: {problem}", flush=True)
            told = {name: result.get(name) for name in ("state", "reason", "exit_code", "ran_s")}
            words = f"The service did not take what the run's agent told of its end: {problem.message}"
            self._call("/finish", told | {"message": shortened(words, MOST_MESSAGE_BYTES)})

    def _call(self, path: str, body: dict[str, Any]) -> None:
        until_answered(lambda: self._link.post(path, body), self._heart.is_stale.is_set)

    def _make_room(self) -> None:
        """Keep what can be kept soon, then remove what filled the disk: nothing else of the run could be told."""
        patience = threading.Timer(self._heart.patience_s, self._heart.is_let_go.set)
        patience.daemon = True
        patience.start()
        self._keep_written()
        shutil.rmtree(self._place.work, ignore_errors=True)

    def _keep_event_file(self) -> None:
        """Keep the metrics as a TensorBoard event file too; the metrics themselves are safe without it."""
        metrics, folder = self._shipper.metrics, self._place.folder / "tensorboard"
        if not metrics.size_bytes:
            return
        crash_point("agent.eventfile.before")
        argv = [sys.executable, "-m", "atelier.agent.tensorboard", str(metrics.path), str(folder)]
        try:
            subprocess.run(argv, stdin=subprocess.DEVNULL, check=True, timeout=EVENT_FILE_TIMEOUT_S)
        except (OSError, subprocess.SubprocessError) as problem:
            print(f"The event file was not written: {problem}", flush=True)
            self._heart.warn("The metrics could not be written as a TensorBoard event file.")
            return
        for path in sorted(folder.iterdir()):
            self._keep(path, f"tensorboard/attempt-{self._place.orders['attempt']}/{path.name}")
        crash_point("agent.eventfile.after")

    def _keep_written(self) -> None:
        """Keep new and changed files as artifacts; one that can't be kept is named, and the next ones are tried."""
        if not self._place.before.is_file():
            return
        crash_point("agent.written.before")
        left = written(self._place.work, self._place.before)
        if left.more:
            self._heart.warn(
                f"{left.more} more files that the run wrote were not kept: a run may leave {len(left.paths)}."
            )
        if left.unkept:
            self._heart.warn(_words_on(left.unkept))
        for number, path in enumerate(left.paths):
            if self.is_hurried():
                words = "files that the run wrote were not kept: it was cancelled while they were stored."
                self._heart.warn(f"{len(left.paths) - number} {words}")
                return
            self._keep(self._place.work / path, path)
        crash_point("agent.written.after")

    def _keep(self, path: Path, name: str) -> None:
        try:
            self._shipper.ship_file(path, name)
        except AtelierError as problem:
            self._heart.warn(f"{readable(name)} was not kept: {problem.message}")
        except OSError as problem:
            self._heart.warn(f"{readable(name)} was not kept: {problem.strerror or problem}.")


def _words_on(unkept: list[str]) -> str:
    count, named = len(unkept), ", ".join(unkept[:NAMED_UNKEPT])
    rest = f" and {count - NAMED_UNKEPT} more" if count > NAMED_UNKEPT else ""
    things = "thing that the run left was" if count == 1 else "things that the run left were"
    return f"{count} {things} not kept: {named}{rest}."
