"""Ships what the work tells: log, metrics, progress, artifacts, checkpoints, models.

Everything is read from files in the spool and sent from where the service says it has got to, so that a service that
was away, or an agent that takes over from a dead one, goes on without gaps and without doubles.
"""

from __future__ import annotations

import json
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from atelier.agent.events import OVER, EventReader
from atelier.agent.heart import Heart
from atelier.agent.held import HeldFile
from atelier.agent.link import Link
from atelier.agent.pieces import CHUNK_BYTES, Pieces
from atelier.agent.place import Place
from atelier.agent.retrying import AWAY, Pauses, until_answered
from atelier.agent.telling import EventTaker
from atelier.agent.uploads import Uploads
from atelier.crash_points import crash_point
from atelier.errors import AtelierError, Unreachable
from atelier.local.plain import write_small
from atelier.recorder.lines import lost_lines

TICK_S = 0.3
_TOLD = {"metrics.jsonl": "values", "events.jsonl": "progress and warnings"}


class Shipper:
    """Ships in a thread of its own until it is drained.

    Parameters
    ----------
    link : Link
        The line to the service.
    place : Place
        The attempt's folder.
    heart : Heart
        Takes progress and warnings, and is told when the service takes nothing of this attempt any more.
    """

    def __init__(self, link: Link, place: Place, heart: Heart) -> None:
        self._link, self._place, self._heart = link, place, heart
        self._uploads = Uploads(link, place)
        self._taker = EventTaker(place, heart, self._uploads)
        self._events = EventReader(
            place.spool / "events.jsonl", self._taker.take, heart.warn, forget=self._taker.forget
        )
        self._log = HeldFile(place.log, heart.warn)
        self.metrics = HeldFile(place.spool / "metrics.jsonl", heart.warn)
        self._sent: dict[str, int | None] = {"log": None, "metrics": None}
        self._gone_bytes = {"log": 0, "metrics": 0}
        self._parts = {
            "The log": self._ship_log,
            "The metrics": self._ship_metrics,
            "What the code told": self._events.read,
            "The notebook": self._ship_notebook,
        }
        self._is_wait_told = False
        self._complaints: dict[str, str] = {}
        self._pieces = Pieces(heart.warn)
        self._notebook_at = 0
        self._wake, self._ending = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._loop, name="shipper", daemon=True)

    def start(self) -> None:
        """Begin; the work has to begin later, for what it tells is held from now on."""
        for each in (self._log, self.metrics, self._events):
            each.hold()
        self._thread.start()

    def wake(self) -> None:
        """Look at once."""
        self._wake.set()

    def drain(self) -> None:
        """Ship all that is left, however long the service is away or fails.

        Returns when it is acknowledged, or refused, or when the user, who has ended the run, had to wait for it for too
        long; what is not delivered is told in the run's record.
        """
        self._ending.set()
        self._wake.set()
        self._thread.join()
        self._tell_left_out()

    def _tell_left_out(self) -> None:
        """Tell how much is missing of what the code told."""
        for name, what in _TOLD.items():
            if count := lost_lines(self._place.spool / name):
                self._heart.warn(f"{count} lines of {what} were lost: they could not be written to the run's disk.")
        if self._pieces.long_lines > 1:
            self._heart.warn(f"{self._pieces.long_lines} lines of metrics were too long, and were left out.")
        if self._taker.more_warnings:
            self._heart.warn(f"{self._taker.more_warnings} more warnings that the code gave were left out.")

    def _loop(self) -> None:
        pauses = Pauses()
        while not self._heart.is_stale.is_set():
            ending = self._ending.is_set()
            failures = self._tick()
            waits = [problem for problem in failures.values() if isinstance(problem, Unreachable)]
            is_let_go = self._heart.is_let_go.is_set() and all(problem.code != AWAY for problem in waits)
            if ending and (not waits or is_let_go):
                for what, problem in failures.items():
                    self._heart.warn(f"{what} could not be delivered to the end: {problem}")
                return
            if not waits:
                pauses.reset()
            elif pauses.waited_s > self._heart.patience_s:
                self._tell_wait(waits[0])
            self._wake.wait(pauses.next_s(waits[-1]) if waits else TICK_S)
            self._wake.clear()

    def _tick(self) -> dict[str, Exception]:
        """Do each part for itself, for one that fails keeps none of the others back; what failed, and how.

        When nothing answers at all, the other parts are not tried.
        """
        failures: dict[str, Exception] = {}
        for what, part in self._parts.items():
            try:
                part()
            except AtelierError as problem:
                if problem.code in OVER:
                    self._heart.over()
                    break
                failures[what] = problem
                self._complain_once(what, f"{what} could not be delivered: {problem}")
                if problem.code == AWAY:
                    break
            except Exception as problem:
                failures[what] = problem
                self._complain_once(what, traceback.format_exc())
        return failures

    def _tell_wait(self, problem: Unreachable) -> None:
        """Tell the user, once, why his run does not end though its work did."""
        if problem.code != AWAY and not self._is_wait_told:
            self._is_wait_told = True
            self._heart.warn(f"The service can't store what the run tells, and is asked again: {problem.message}")

    def _complain_once(self, what: str, text: str) -> None:
        """Tell the agent's own log, which is not the run's; what comes again at every tick is told once."""
        if text != self._complaints.get(what):
            self._complaints[what] = text
            print(text, flush=True)

    def _ship_log(self) -> None:
        self._ship("log", self._log, _chunk)

    def _ship_metrics(self) -> None:
        self.metrics.follow_name()
        self._ship("metrics", self.metrics, self._pieces.next)

    def _ship(self, stream: str, file: HeldFile, piece: Callable[[BinaryIO, int], bytes]) -> None:
        """Send what a file has more than the service; ``piece`` says what may go from a place on."""
        if not file.hold():
            return
        sent = self._sent[stream]
        if sent is None:
            sent = self._link.put(f"/streams/{stream}", b"", offset=0)["size"]
        gone = self._gone_bytes[stream] = sent - file.go_on(sent - self._gone_bytes[stream])
        end = file.size_bytes + gone  # what comes meanwhile waits for the next tick: who prints on would never pause
        with file.reader() as source:
            while sent < end and (data := piece(source, sent - gone)):
                crash_point("agent.ship.before")
                sent = self._link.put(f"/streams/{stream}", data, offset=sent)["size"]
                crash_point("agent.ship.after")
                self._sent[stream] = sent
        self._sent[stream] = sent

    def signs(self) -> list[int]:
        """How much the work has told; while this grows it lives."""
        return [each.size_bytes for each in (self._log, self.metrics, self._events)]

    def _ship_notebook(self) -> None:
        path = self._place.notebook
        if path.exists() and path.stat().st_mtime_ns != self._notebook_at:
            changed = path.stat().st_mtime_ns
            self._uploads.artifact(path, self._uploads.notebook_name, "notebook")
            self._notebook_at = changed

    def limit(self, artifact_bytes: int) -> None:
        """How large one artifact may be."""
        self._uploads.limit_bytes = artifact_bytes

    def hurry(self, is_hurried: Callable[[], bool]) -> None:
        """Ask this before each file of a checkpoint or a model; where it is so, the folder is left out."""
        self._uploads.is_hurried = is_hurried

    def name_notebook(self, name: str) -> None:
        """How the executed notebook is called among the artifacts."""
        self._uploads.notebook_name = name

    def take_over(self) -> None:
        """Go on where another agent may have stored things, and removed them, that it had no time to note."""
        self._taker.is_second = True

    def ship_file(self, path: Path, name: str, kind: str = "written") -> None:
        """Keep a file as an artifact, in this thread; waits while the service is away."""
        heart = self._heart
        until_answered(
            lambda: self._uploads.artifact(path, name, kind),
            heart.is_stale.is_set,
            is_let_go=heart.is_let_go.is_set,
            tell=self._tell_wait,
            patience_s=heart.patience_s,
        )


def _chunk(source: BinaryIO, offset: int) -> bytes:
    source.seek(offset)
    return source.read(CHUNK_BYTES)


def write_control(place: Place, order: str | None) -> None:
    """Tell the code in the run, through ``should_stop()``, what the service wants."""
    write_small(place.control, json.dumps({"stop": order}).encode())
