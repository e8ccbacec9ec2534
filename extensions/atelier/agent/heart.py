"""Signs of life: progress, use of the machine and warnings go to the service, and the order to stop comes back.

It beats in a thread and on a line of its own, so that a long upload neither silences the attempt nor makes it deaf.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from atelier.agent.events import OVER
from atelier.agent.family import Family
from atelier.agent.gpu import GpuMeter
from atelier.agent.link import Link
from atelier.agent.progress import ProgressMeter
from atelier.agent.retrying import AWAY, PATIENCE_S
from atelier.agent.worktime import WorkTime
from atelier.crash_points import crash_point
from atelier.errors import AtelierError, Unreachable
from atelier.naming import MOST_WARNINGS

TICK_S = 0.2
HEARTBEAT_S = 1.0
USAGE_S = 2.0


class Heart:
    """Beats until the service takes nothing of the attempt any more.

    Parameters
    ----------
    link : Link
        The line to the service; no other thread uses it.
    family : Family
        Whose use of the machine is told.
    gpus : GpuMeter
        The attempt's GPUs.
    work_time : WorkTime
        Tells how long the work has run.
    on_stop : callable
        Called with (order, seconds there are) at each beat while the service wants the work to stop.
    """

    def __init__(
        self,
        link: Link,
        family: Family,
        gpus: GpuMeter,
        *,
        work_time: WorkTime,
        on_stop: Callable[[str, float], None],
    ) -> None:
        self.progress = ProgressMeter()
        self.is_stale = threading.Event()
        self.is_let_go = threading.Event()
        """The user has ended the run long ago: what a failing service does not take is waited for no more."""
        self.patience_s = PATIENCE_S
        """How long that is."""
        self._link, self._family, self._gpus, self._on_stop = link, family, gpus, on_stop
        self._work_time = work_time
        self._warnings: list[tuple[str, bool]] = []
        self._usage: dict[str, float] = {}
        self._usage_at = self._beat_at = float("-inf")
        self._told: Any = None
        self._stop_by = float("inf")
        self._complaint = ""
        self._settling, self._settled = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._loop, name="heart", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def warn(self, text: str) -> None:
        """Have a warning noted in the run's record."""
        self._warnings.append((text[:1000], False))

    def warn_for_code(self, text: str) -> None:
        """The same for one that the code gives itself; the record has room for fewer of them."""
        self._warnings.append((text[:1000], True))

    def settle(self) -> None:
        """Tell the last news; waits while the service is away. The beating goes on: there is still the end to tell."""
        self._settling.set()
        self._settled.wait()

    def over(self) -> None:
        """Note that the service takes nothing of this attempt any more: the work has to stop."""
        self.is_stale.set()
        self._on_stop("cancel", 0.0)

    def _loop(self) -> None:
        while not self.is_stale.is_set():
            is_settling, pause_s = self._settling.is_set() and not self._settled.is_set(), TICK_S
            is_last = is_settling and len(self._warnings) <= MOST_WARNINGS
            try:
                self._beat(now=time.monotonic(), is_due=is_settling)
            except Unreachable as problem:
                is_let_go = self.is_let_go.is_set() and problem.code != AWAY
                is_last, pause_s = is_settling and is_let_go, HEARTBEAT_S
            except AtelierError as problem:
                if problem.code in OVER:
                    self.over()
                else:
                    self._complain_once(f"The service refused a sign of life: {problem}")
            except Exception:  # the heart must go on beating, or no order to stop would come
                self._complain_once(traceback.format_exc())
            if is_last:
                self._settled.set()
            self._pause(pause_s)
        self._settled.set()

    def _pause(self, pause_s: float) -> None:
        if self._settling.is_set():
            time.sleep(pause_s)
        else:
            self._settling.wait(pause_s)

    def _complain_once(self, text: str) -> None:
        """Tell the agent's own log; what comes again at every beat is told once."""
        if text != self._complaint:
            self._complaint = text
            print(text, flush=True)

    def _beat(self, *, now: float, is_due: bool) -> None:
        if now - self._usage_at >= USAGE_S:
            self._usage, self._usage_at = self._family.usage() | self._gpus.usage(), now
        news = (self.progress.as_json(), self._warnings[:MOST_WARNINGS])
        if not is_due and news == self._told and now - self._beat_at < HEARTBEAT_S:
            return
        told = {"warnings": [text for text, of_code in news[1] if not of_code]}
        told |= {"code_warnings": [text for text, of_code in news[1] if of_code]}
        body = {"progress": news[0], "usage": self._usage, **told, "ran_s": self._work_time.seconds}
        crash_point("agent.heartbeat.before")
        answer = self._link.post("/heartbeat", body)
        crash_point("agent.heartbeat.after")
        self._usage, self._beat_at = {}, now
        del self._warnings[: len(news[1])]
        self._told = (news[0], [])
        if answer.get("stop"):
            self._hear(str(answer["stop"]), float(answer["grace_s"]))

    def _hear(self, order: str, grace_s: float) -> None:
        """Obey an order, within seconds that count from when it was heard first; a shorter time counts anew."""
        self._stop_by = min(self._stop_by, time.monotonic() + grace_s)
        left_s = self._stop_by - time.monotonic()
        if left_s < -self.patience_s:
            self.is_let_go.set()
        self._on_stop(order, left_s)
