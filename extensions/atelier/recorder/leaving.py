"""Ends a program whose run has to give its place away, so that the next attempt goes on where this one was."""

from __future__ import annotations

import os
import sys

from atelier.recorder.recording import Recorder

PREEMPTED_EXIT_CODE = os.EX_TEMPFAIL
"""75, try again later: how a program says that it stopped for that reason, and that its checkpoint is kept."""


def leave_if_preempted(job: Recorder) -> None:
    """Raise ``SystemExit(75)`` when the run's place is needed; what comes after a training is the next attempt's."""
    if job.stop_reason == "preempt":
        if sys.stderr is not None:
            print("atelier: the run gives its place away, and will go on from its checkpoint.", file=sys.stderr)
        raise SystemExit(PREEMPTED_EXIT_CODE)
