"""How many threads numerical libraries take: as many as a machine has cores, in its notebooks and in its runs."""

from __future__ import annotations

NAMES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)


def thread_limits(cpu: float) -> dict[str, str]:
    """Environment variables for a machine of ``cpu`` cores; on one computer nothing else holds code to its share."""
    return dict.fromkeys(NAMES, str(max(1, int(cpu))))
