"""Put first on the path of a process whose clock libfaketime sets: lets it sleep, and leaves its children's clocks.

libfaketime 0.9, told to leave the monotonic clock alone, answers EINVAL to `clock_nanosleep` with an absolute
time, which `time.sleep` uses since Python 3.11.
"""

from __future__ import annotations

import os
import select
import time


def _sleep(seconds: float) -> None:
    select.select([], [], [], max(0.0, seconds))


time.sleep = _sleep
os.environ.pop("LD_PRELOAD", None)
