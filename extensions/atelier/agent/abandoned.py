"""Ends an agent whose folder was removed: nothing of its attempt is left to tell, and nobody would start another one.

A service that is only away is waited for, however long; its folder stays where it is.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from atelier.agent.place import Place

LOOK_S = 1.0
MISSES = 4
"""So often in a row the orders must be missing. Looks are counted, not seconds: a process may be frozen in between."""


def end_with_folder(place: Place, end_work: Callable[[], None]) -> None:
    """Watch in a thread; when the orders are gone for good, end the work's processes and this one."""
    threading.Thread(target=_watch, args=(place, end_work), name="abandoned", daemon=True).start()


def _watch(place: Place, end_work: Callable[[], None]) -> None:
    misses = 0
    while misses < MISSES:
        time.sleep(LOOK_S)
        misses = 0 if _is_there(place) else misses + 1
    try:
        end_work()
    finally:
        os._exit(1)  # whatever the other threads wait for, it does not come any more


def _is_there(place: Place) -> bool:
    """Whether the backend's orders are there: the service, too, takes an attempt without them for none."""
    try:
        os.lstat(place.folder / "orders.json")
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # a disk that doesn't answer is no folder that is gone
        return True
    return True
