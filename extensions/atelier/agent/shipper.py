"""Ships what the work tells: log, metrics, progress, artifacts, checkpoints, models; and brings back the order to stop.

Everything is read from files in the spool and sent from where the service says it has got to, so that a service that
was away, or an agent that takes over from a dead one, goes on without gaps and without doubles.
"""

from __future__ import annotations

import json
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from atelier.agent.events import OVER, EventReader
from atelier.agent.family import Family
from atelier.agent.gpu import GpuMeter
from atelier.agent.link import Link
from atelier.agent.place import Place
from atelier.agent.progress import ProgressMeter
from atelier.agent.uploads import Uploads
from atelier.errors import AtelierError, Unreachable

TICK_S = 0.2
HEARTBEAT_S = 1.0
USAGE_S = 2.0
AWAY_PAUSE_S = 1.0
CHUNK_BYTES = 1 << 20
MOST_WARNINGS = 100
"""As many as the service takes at once, and as a run's record holds."""


class Shipper:
    """Ships in a thread of its own until it is drained.

    Parameters
    ----------
    link : Link
        The line to the service.
    place : Place
        The attempt's folder.
    family : Family
        Whose use of the machine is told.
    on_stop : callable
        Called with (order, seconds there are) when the service, or a refusal, says that the work has to stop.
    """

    def __init__(self, link: Link, place: Place, family: Family, on_stop: Callable[[str, float], None]) -> None:
        self.progress = ProgressMeter()
        self.last_sign = time.monotonic()
        self.is_stale = False
        self._link, self._place, self._family, self._on_stop = link, place, family, on_stop
        self._gpus = GpuMeter(place.orders["devices"].get("nvidia.com/gpu", ()))
        self._uploads = Uploads(link, place)
        self._events = EventReader(place.spool / "events.jsonl", self._take, self.warn)
        self._sent: dict[str, int | None] = {"log": None, "metrics": None}
        self._warnings: list[str] = []
        self._usage: dict[str, float] = {}
        self._usage_at = self._beat_at = 0.0
        self._told: Any = None
        self._complaint = ""
        self._notebook_at = 0
        self._wake, self._ending = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._loop, name="shipper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Look at once."""
        self._wake.set()

    def warn(self, text: str) -> None:
        """Have a warning noted in the run's record."""
        self._warnings.append(text)

    def drain(self) -> None:
        """Ship all that is left, however long the service is away; return when it is acknowledged, or refused."""
        self._ending.set()
        self._wake.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self.is_stale:
            ending = self._ending.is_set()
            pause_s = TICK_S
            try:
                self._tick(is_last=ending)
                if ending:
                    return
            except Unreachable:
                pause_s = AWAY_PAUSE_S
            self._wake.wait(pause_s)
            self._wake.clear()

    def _tick(self, *, is_last: bool) -> None:
        """Do each part for itself: what is refused of one, or is a defect in one, keeps none of the others back."""
        for part in (self._events.read, self._ship_streams, self._ship_notebook, lambda: self._beat(is_last=is_last)):
            try:
                part()
            except Unreachable:
                raise
            except AtelierError as problem:
                if problem.code in OVER:
                    self.is_stale = True
                    self._on_stop("cancel", 0.0)
                    return
                self._complain_once(f"The service refused: {problem}")
            except Exception:
                self._complain_once(traceback.format_exc())

    def _complain_once(self, text: str) -> None:
        """Tell the agent's own log, which is not the run's; what comes again at every tick is told once."""
        if text != self._complaint:
            self._complaint = text
            print(text, flush=True)

    def _ship_streams(self) -> None:
        grew = self._ship("log", self._place.log, lines=False)
        grew = self._ship("metrics", self._place.spool / "metrics.jsonl", lines=True) or grew
        if grew:
            self.last_sign = time.monotonic()

    def _ship(self, stream: str, path: Path, *, lines: bool) -> bool:
        """Send what a file has more than the service; whether there was any."""
        if not path.exists():
            return False
        sent = self._sent[stream]
        if sent is None:
            sent = self._link.put(f"/streams/{stream}", b"", offset=0)["size"]
        grew = False
        with path.open("rb") as source:
            while True:
                source.seek(sent)
                data = source.read(CHUNK_BYTES)
                if lines:
                    data = data[: data.rfind(b"\n") + 1]
                if not data:
                    break
                sent, grew = self._link.put(f"/streams/{stream}", data, offset=sent)["size"], True
                self._sent[stream] = sent
        self._sent[stream] = sent
        return grew

    def _ship_notebook(self) -> None:
        path = self._place.notebook
        if path.exists() and path.stat().st_mtime_ns != self._notebook_at:
            changed = path.stat().st_mtime_ns
            self._uploads.artifact(path, self._uploads.notebook_name, "notebook")
            self._notebook_at = changed

    def name_notebook(self, name: str) -> None:
        """How the executed notebook is called among the artifacts."""
        self._uploads.notebook_name = name

    def _take(self, event: dict[str, Any]) -> None:
        kind = event.get("type")
        self.last_sign = time.monotonic()
        if kind == "progress":
            self.progress.set(event["done"], event.get("total"), event["t"], own=True)
        elif kind == "artifact":
            self._uploads.artifact(self._in_spool(f"artifacts/{event['path']}"), event["path"], "saved")
        elif kind == "checkpoint":
            self._uploads.checkpoint(self._in_spool(event["folder"]), int(event["step"]))
        elif kind == "model":
            self._uploads.model(self._in_spool(event["folder"]), str(event["name"]))
        elif kind == "warning":
            self.warn(str(event["text"])[:1000])

    def _in_spool(self, name: str) -> Path:
        path = (self._place.spool / name).resolve()
        if not path.is_relative_to(self._place.spool.resolve()):
            raise ValueError("it lies outside the run's spool")
        return path

    def ship_file(self, path: Path, name: str, kind: str = "written") -> None:
        """Keep a file as an artifact, in this thread; waits while the service is away."""
        while not self.is_stale:
            try:
                self._uploads.artifact(path, name, kind)
                return
            except Unreachable:
                time.sleep(AWAY_PAUSE_S)

    def _beat(self, *, is_last: bool) -> None:
        now = time.monotonic()
        if now - self._usage_at >= USAGE_S:
            self._usage, self._usage_at = self._family.usage() | self._gpus.usage(), now
        news = (self.progress.as_json(), self._warnings[:MOST_WARNINGS])
        if not is_last and now - self._beat_at < (TICK_S if news != self._told else HEARTBEAT_S):
            return
        body = {"progress": news[0], "usage": self._usage, "warnings": news[1]}
        self._usage = {}
        answer = self._link.post("/heartbeat", body)
        self._beat_at, self._told = now, news
        del self._warnings[: len(news[1])]
        if answer.get("stop"):
            self._on_stop(str(answer["stop"]), float(answer["grace_s"]))


def write_control(place: Place, order: str | None) -> None:
    """Tell the code in the run, through ``should_stop()``, what the service wants."""
    part = place.control.with_suffix(".part")
    part.write_text(json.dumps({"stop": order}))
    part.replace(place.control)
