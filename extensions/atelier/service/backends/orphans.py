"""What the work of a dead agent has left behind, found also when it cleared its environment and left its session.

An orphan belongs to its nearest ancestor that has asked for orphans: to its agent while that lives, then to the service
that started the agent. Those of an agent whose service has ended, too, go to process 1, and are not found.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection

import psutil


def orphans(agents: Collection[int]) -> list[int]:
    """Ids of the processes that came to this one as orphans, with all below them; those that have ended are reaped.

    Parameters
    ----------
    agents : collection of int
        The agents that this process has started; what else it starts stays in its own session.
    """
    found: list[int] = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError, ChildProcessError):
            if child.pid in agents or os.getsid(child.pid) == os.getsid(0):
                continue
            if child.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(child.pid, os.WNOHANG)
            else:
                found += [child.pid, *(each.pid for each in child.children(recursive=True))]
    return found
