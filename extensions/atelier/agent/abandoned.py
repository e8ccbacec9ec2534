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
GONE_S = 3.0


def end_with_folder(place: Place, end_work: Callable[[], None]) -> None:
    """Watch in a thread; when the orders have been gone for `GONE_S`, end the work's processes and this one."""
    threading.Thread(target=_watch, args=(place, end_work), name="abandoned", daemon=True).start()


def _watch(place: Place, end_work: Callable[[], None]) -> None:
    seen_at = time.monotonic()
    while time.monotonic() - seen_at < GONE_S:
        if _is_there(place):
            seen_at = time.monotonic()
        time.sleep(LOOK_S)
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
