"""What says that a disk is full."""

from __future__ import annotations

import errno

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def is_full(problem: OSError) -> bool:
    """Whether an error says that a disk, or this account's share of it, is full."""
    return problem.errno in _FULL
