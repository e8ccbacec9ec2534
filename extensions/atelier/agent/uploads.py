"""Brings an attempt's files to where the service says, and has them noted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from atelier.agent.link import Link
from atelier.agent.outputs import readable
from atelier.agent.place import Place, sha256_of, store
from atelier.crash_points import crash_point
from atelier.errors import Conflict, RefusedInput
from atelier.local.plain import open_regular
from atelier.quantities import format_bytes
from atelier.recorder.spool import checkpoint_order, unlike_manifest

MOST_CARD_BYTES = 8 << 20


class Uploads:
    """Stores artifacts, checkpoints and models; each may be stored again with the same outcome."""

    def __init__(self, link: Link, place: Place) -> None:
        self._link, self._place = link, place
        self._names: dict[str, str] = {}
        self.notebook_name = "notebook.ipynb"
        self.limit_bytes: float = math.inf
        """Most bytes that one file may have; a larger one is refused before it is read."""

        self.is_hurried: Callable[[], bool] = lambda: False
        """Whether the user waits for the end, and for no more folders of files; asked before each file."""

    def artifact(self, path: Path, name: str, kind: str) -> None:
        """Keep a file as an artifact of the run; one whose name is no text has one that is, and that no other has."""
        name = self._text(name)
        size = path.stat(follow_symlinks=False).st_size
        if size > self.limit_bytes:
            words = f"{name} has {format_bytes(size)}; a run may leave {format_bytes(int(self.limit_bytes))}."
            raise RefusedInput("too_large", words, hint="Write less.")
        report = _report(path, name) | {"kind": kind}
        crash_point("agent.artifact.before")
        store(path, self._link.post("/artifacts/place", report)["url"])
        crash_point("agent.artifact.stored")
        self._link.post("/artifacts", report)
        crash_point("agent.artifact.after")

    def _text(self, name: str) -> str:
        text = readable(name)
        while "%" in text and self._names.setdefault(text, name) != name:
            text += "%"
        return text

    def _go_on(self, what: str) -> None:
        if self.is_hurried():
            raise Conflict("cancelled", f"{what} was not kept: the run was cancelled while its files were stored.")

    def _report_unhurried(self, path: Path, name: str, what: str) -> dict[str, Any]:
        self._go_on(what)
        return _report(path, name)

    def checkpoint(self, folder: Path, step: int) -> None:
        """Publish a checkpoint: first all its files, then the one call that makes it the newest.

        Raises
        ------
        RefusedInput
            ``torn_checkpoint``: it is not what the code has published.
        Conflict
            ``cancelled``: the user waits for the end, and for no more files.
        """
        what = f"The checkpoint of step {step}"
        files = [self._report_unhurried(path, name, what) for name, path in _files(folder)]
        wrong = unlike_manifest(folder, {file["path"]: file["sha256"] for file in files})
        if wrong:
            raise RefusedInput(
                "torn_checkpoint",
                f"The checkpoint of step {step} is not whole and was not kept: {wrong}.",
                hint="Leave the folder that checkpoint() returns as it is.",
            )
        crash_point("agent.checkpoint.before")
        copy, total = (checkpoint_order(folder)[1:] or (1,))[0], sum(file["size_bytes"] for file in files)
        for file in files:
            self._go_on(what)
            asked = {"step": step, "path": file["path"], "copy_number": copy, "size_bytes": total}
            store(folder / file["path"], self._link.post("/checkpoints/place", {}, **asked)["url"])
        crash_point("agent.checkpoint.stored")
        self._link.post("/checkpoints", {"step": step, "copy_number": copy, "files": files})
        crash_point("agent.checkpoint.after")

    def model(self, folder: Path, name: str) -> None:
        """Register a model package that the run has made."""
        what = f"The model {name}"
        files = [self._report_unhurried(path, relative, what) for relative, path in _files(folder)]
        crash_point("agent.model.before")
        for file in files:
            self._go_on(what)
            url = self._link.post("/uploads/place", file)["url"]
            if url is not None:
                store(folder / file["path"], url)
        card: dict[str, Any] = _json_of(folder / "model.json")
        crash_point("agent.model.stored")
        self._link.post("/models", {"name": name, "card": card, "files": files})
        crash_point("agent.model.after")


def _json_of(path: Path) -> dict[str, Any]:
    with open_regular(path) as stream:
        content: dict[str, Any] = json.loads(stream.read(MOST_CARD_BYTES))
    return content


def _files(folder: Path) -> list[tuple[str, Path]]:
    return [(path.relative_to(folder).as_posix(), path) for path in sorted(folder.rglob("*")) if path.is_file()]


def _report(path: Path, name: str) -> dict[str, Any]:
    if readable(name) != name:
        raise ValueError(f"the name of {readable(name)} is not UTF-8")
    return {"path": name, "size_bytes": path.stat().st_size, "sha256": sha256_of(path)}
