"""Takes what the code tells of its run: progress and warnings for the record, files and folders for the storage.

What is stored goes from the spool: a long run needs no more disk for it than for its newest checkpoint.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
from pathlib import Path, PurePosixPath
from typing import Any

from atelier.agent.heart import Heart
from atelier.agent.place import Place
from atelier.agent.uploads import Uploads
from atelier.crash_points import crash_point
from atelier.naming import MOST_CODE_WARNINGS


class EventTaker:
    """Takes the recorder's events, one at a time; the same one again with the same outcome.

    Parameters
    ----------
    place : Place
        The attempt's folder.
    heart : Heart
        Takes progress and warnings.
    uploads : Uploads
        Takes artifacts, checkpoints and models.
    """

    def __init__(self, place: Place, heart: Heart, uploads: Uploads) -> None:
        self._place, self._heart, self._uploads = place, heart, uploads
        self._newest: Path | None = None
        self._saved: set[str] = set()
        self._warned: set[str] = set()
        self.more_warnings = 0
        """How many warnings the code gave that the record has no room for."""

        self.is_second = False
        """Another agent took events before: what is not there any more was stored by it."""

    def take(self, event: dict[str, Any]) -> bool:
        """Take it; whether there is something to `forget` once it is noted that it was taken."""
        kind = event.get("type")
        if kind == "progress":
            self._heart.progress.set(event["done"], event.get("total"), event["t"], own=True)
        elif kind == "warning":
            self._warn(str(event["text"])[:1000])
        try:
            if kind == "artifact":
                self._take_artifact(event)
            elif kind == "checkpoint":
                self._uploads.checkpoint(self._folder("checkpoints", event), int(event["step"]))
            elif kind == "model":
                self._uploads.model(self._folder("models", event), str(event["name"]))
        except FileNotFoundError as problem:
            if not self.is_second:
                raise
            print(f"It was taken before: {problem}", flush=True)
        return kind in {"artifact", "checkpoint", "model"}

    def _warn(self, text: str) -> None:
        """Tell a warning of the code's own, each once, and as many as the record has room for."""
        if text not in self._warned and len(self._warned) == MOST_CODE_WARNINGS:
            self.more_warnings += 1
        elif text not in self._warned:
            self._warned.add(text)
            self._heart.warn_for_code(text)

    def forget(self, event: dict[str, Any]) -> None:
        """Remove from the spool what was taken, or refused for good; of checkpoints the newest stays."""
        try:
            kind = event.get("type")
            if kind == "artifact":
                self._held(event).unlink(missing_ok=True)
            elif kind == "checkpoint":
                spent, self._newest = self._newest, self._folder("checkpoints", event)
                if spent is not None and spent != self._newest:
                    shutil.rmtree(spent, ignore_errors=True)
            elif kind == "model":
                shutil.rmtree(self._folder("models", event), ignore_errors=True)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as problem:
            print(f"Nothing to remove for {event!r:.200}: {problem!r}", flush=True)

    def _take_artifact(self, event: dict[str, Any]) -> None:
        """Keep a file, moved out of the recorder's reach first, who may save another one under its name at any time."""
        name, held = event["path"], self._held(event)
        source = self._below("artifacts", name)
        if not held.exists():
            if name in self._saved and not os.path.lexists(source):
                return  # what it told of was there already when an earlier event of this name was taken
            if not stat.S_ISREG(os.lstat(source).st_mode):
                raise OSError(errno.EINVAL, "it is no plain file", str(source))
            held.parent.mkdir(mode=0o700, exist_ok=True)
            source.rename(held)
            crash_point("agent.artifact.held")
        self._uploads.artifact(held, name, "saved")
        self._saved.add(name)

    def _held(self, event: dict[str, Any]) -> Path:
        digest = hashlib.sha256(json.dumps(event, sort_keys=True).encode()).hexdigest()
        return self._place.folder / "held" / digest

    def _folder(self, kind: str, event: dict[str, Any]) -> Path:
        """A folder that the recorder has published."""
        above, _, name = event["folder"].partition("/")
        if above != kind or not name or "/" in name:
            raise ValueError("it lies outside the run's spool")
        folder = self._below(kind, name)
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "it is no folder", str(folder))
        return folder

    def _below(self, kind: str, name: str) -> Path:
        """A place in the spool, which itself may be a link, but lies behind none."""
        parts, spool = PurePosixPath(name).parts, self._place.spool.resolve()
        path = spool.joinpath(kind, *parts)
        if not parts or parts[0] == "/" or ".." in parts or not path.parent.resolve().is_relative_to(spool):
            raise ValueError("it lies outside the run's spool")
        return path
