"""What a training tells of itself, written to files in the run's folder: standard library, no network, no token."""

from __future__ import annotations

from atelier.recorder.recording import Recorder as Recorder
from atelier.recorder.recording import current_run as current_run
