"""Named places in the life of a run at which a test makes the process die, as a crash or a loss of power would.

The environment variable ``ATELIER_CRASH_AT`` names a file that holds one order a line, ``NAME`` or ``NAME:3`` (when the
process comes there for the third time). The first process that comes to the place of the first line takes that line
out, adds it to the file ``<file>.done``, and kills itself. Without the variable a place costs one look at a None.
Standard library only, for the code in a run passes some of these places too.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
from contextlib import suppress
from pathlib import Path

ENVIRONMENT = "ATELIER_CRASH_AT"

POINTS = (
    # a submit
    *("service.upload.before", "service.upload.after"),
    *("service.submit.before", "service.submit.after"),
    *("service.bundle.before", "service.bundle.after", "service.queue.after"),
    # the start of an attempt
    *("service.claim.before", "service.claim.within", "service.claim.after"),
    *("service.launch.cleared", "service.launch.counted"),
    *("service.launch.token", "service.launch.orders", "service.launch.after"),
    *("agent.lock.before", "agent.lock.after", "agent.orders.before", "agent.orders.after"),
    *("agent.fetch.before", "agent.fetch.after", "agent.unpack.after", "agent.params.after"),
    *("agent.resume.before", "agent.resume.after", "agent.remember.after"),
    *("agent.started.before", "service.started.before", "service.started.lock", "service.started.rows"),
    *("service.started.after", "agent.started.after"),
    # the work
    *("agent.work.begun", "agent.cell.before", "agent.cell.after"),
    *("agent.notebook.before", "agent.notebook.after"),
    *("recorder.line.before", "recorder.line.after"),
    *("recorder.copy.before", "recorder.copy.after", "recorder.publish.written", "recorder.publish.after"),
    *("agent.log.before", "agent.log.after"),
    # what it tells
    *("agent.heartbeat.before", "service.heartbeat.before", "service.heartbeat.after", "agent.heartbeat.after"),
    *("agent.ship.before", "service.append.before", "service.append.blob", "service.append.after"),
    *("agent.ship.after", "service.merge.before", "service.merge.written", "service.merge.after"),
    *("service.fold.before", "service.fold.curves", "service.fold.after"),
    *("agent.event.before", "agent.artifact.held", "agent.artifact.before", "agent.artifact.stored"),
    *("service.take.copied", "service.artifact.before", "service.artifact.rows", "service.artifact.after"),
    *("service.take.done", "agent.artifact.after"),
    *("agent.checkpoint.before", "agent.checkpoint.stored"),
    *("service.checkpoint.before", "service.checkpoint.rows", "service.checkpoint.after", "agent.checkpoint.after"),
    *("agent.model.before", "agent.model.stored"),
    *("service.model.before", "service.model.rows", "service.model.file", "service.model.after", "agent.model.after"),
    *("agent.event.taken", "agent.event.noted", "agent.event.after"),
    # its end
    *("agent.work.ended", "agent.result.before", "agent.result.after"),
    *("agent.ended.before", "service.ended.before", "service.ended.after", "agent.ended.after"),
    *("agent.written.before", "agent.written.after", "agent.eventfile.before", "agent.eventfile.after"),
    *("agent.drain.before", "agent.drain.after", "agent.settle.after"),
    *("service.finish.before", "service.take.closed"),
    *("service.compose.before", "service.compose.written", "service.compose.after"),
    *("service.finish.composed", "service.finish.result", "service.finish.within", "service.finish.rows"),
    *("service.record.before", "service.record.written", "service.record.after", "service.finish.after"),
    *("agent.finish.after", "service.clean.before", "service.clean.killed", "service.clean.after"),
    # an end that does not come from the agent
    *("service.cancel.before", "service.cancel.after", "service.expire.before", "service.expire.after"),
    *("service.recover.before", "service.recover.spawned", "service.recover.after"),
    *("agent.deliver.before", "agent.deliver.asked", "agent.deliver.after"),
    *("service.aside.before", "service.aside.after", "service.lost.before", "service.lost.rows", "service.lost.after"),
    *("service.sweep.before", "service.sweep.after"),
    # its removal
    *("service.remove.before", "service.remove.rows", "service.remove.blobs", "service.remove.after"),
    *("service.house.before", "service.house.blobs", "service.house.after"),
    # every blob, whoever writes it
    *("storage.replace.before", "storage.replace.written", "storage.replace.after"),
)
"""All names, in the order in which a run comes to them. Each stands at one place in the source."""


def crash_point(name: str) -> None:
    """Die here, if that was ordered."""
    fuse = _fuse()
    if fuse is not None:
        fuse.burn(name)


@functools.cache
def _fuse() -> _Fuse | None:
    path = os.environ.get(ENVIRONMENT)
    return _Fuse(Path(path)) if path else None


class _Fuse:
    """Reads the orders anew at each place, so that a process that is long under way can be given one."""

    def __init__(self, orders: Path) -> None:
        self._orders = orders
        self._order = ""
        self._passed = 0
        self._dying = threading.Lock()

    def burn(self, name: str) -> None:
        """End this process when the first order is for this place; nothing when another process was faster."""
        order, _, _ = self._read().partition("\n")
        wanted, _, times = order.partition(":")
        if wanted != name:
            return
        self._passed = 1 + (self._passed if order == self._order else 0)
        self._order = order
        if self._passed >= int(times or 1):
            # No other thread may come past this place while the process dies.
            with self._dying, suppress(FileNotFoundError):
                self._take(order)
                os.kill(os.getpid(), signal.SIGKILL)

    def _read(self) -> str:
        try:
            return self._orders.read_text()
        except FileNotFoundError:
            return ""

    def _take(self, order: str) -> None:
        """Take the first order out; of several processes one succeeds."""
        taken = self._orders.with_name(f"{self._orders.name}.{os.getpid()}")
        os.rename(self._orders, taken)
        rest = taken.read_text().partition("\n")[2]
        with open(f"{self._orders}.done", "a") as done:
            done.write(f"{order}\n")
        if rest:
            taken.write_text(rest)
            os.rename(taken, self._orders)
        else:
            taken.unlink()
