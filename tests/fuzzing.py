"""How long generated examples are looked for: the same ones each time, unless ``ATELIER_FUZZ`` asks for more.

``ATELIER_FUZZ=20`` makes twenty times as many examples, and others at each run.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("ATELIER_FUZZ", "1"))


def examples(count: int, *, steps: int = 50) -> settings:
    """Settings for that many examples, each of at most so many steps where it is made of steps."""
    return settings(
        max_examples=count * TIMES,
        stateful_step_count=steps,
        derandomize=TIMES == 1,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
    )
