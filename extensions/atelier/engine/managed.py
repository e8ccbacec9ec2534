"""An engine of papermill: the notebook runs in the service, and its output is written here as it grows."""

from __future__ import annotations

import difflib
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import nbformat
from papermill.engines import Engine, NotebookExecutionManager
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import papermill_io
from papermill.log import logger

from atelier.client import Client
from atelier.engine.executed import failed_index, has_error, show_ending, take_cells
from atelier.errors import NotFound, RefusedInput
from atelier.following import is_final, read_log, watch
from atelier.submission import Order, Submission, option_of, prepare, send

REFRESH_S = 2.0
"""How often the output notebook is written at most while the run goes on."""

CANCEL_WAIT_S = 30.0

_OPTIONS = tuple(
    "image machine nodes retries retry_on priority timeout queue_timeout stall_timeout name project".split()
)
_WHOLE_NUMBERS = frozenset({"nodes", "retries", "priority"})


class ManagedEngine(Engine):
    """The engine behind `atelier.engine.AtelierEngine`, which papermill finds by its entry point."""

    @classmethod
    def execute_notebook(cls, nb: Any, kernel_name: str, output_path: str | None = None, **options: Any) -> Any:
        """Check everything before an output notebook is begun, then submit and follow.

        Raises
        ------
        RefusedInput
            As `atelier.submit`, and ``bad_metadata`` for options of the notebook that are none. Nothing is written.
        PapermillExecutionError
            The run did not succeed: the user's cell and traceback, or why it ended.
        """
        with _input_file(nb, options.pop("input_path", None)) as path:
            order = _order(nb.metadata.get("atelier", {}), os.environ)
            submission = prepare(path, dict(nb.metadata.get("papermill", {}).get("parameters") or {}), order)
            return super().execute_notebook(nb, kernel_name, output_path=output_path, submission=submission, **options)

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: NotebookExecutionManager, kernel_name: str, *, submission: Submission, **options: Any
    ) -> None:
        """Submit, follow to the end, and leave the executed cells in the manager's notebook."""
        if options.get("execution_timeout"):
            logger.warning("A limit for one cell can't be kept by a run; set ATELIER_TIMEOUT for the whole.")
        with _quiet_http(), Client.find() as client:
            record = send(client, submission)
            for text in record["source"]["warnings"]:
                logger.warning(text)
            _Following(client, record, nb_man, aloud=bool(options.get("log_output"))).follow()


class _Following:
    """One run as papermill sees it: a manager whose notebook grows, a bar, a log."""

    def __init__(
        self, client: Client, record: dict[str, Any], manager: NotebookExecutionManager, *, aloud: bool
    ) -> None:
        self._client, self._manager, self._aloud = client, manager, aloud
        self._id: str = record["id"]
        self._log_places: dict[int, int] = {}
        self._message = ""
        self._refreshed_at_s = 0.0
        self._seen: object = None
        manager.nb.metadata.papermill["run"] = self._id

    def follow(self) -> None:
        """Keep the notebook up to date until the run is final; raise when it did not succeed."""
        try:
            record = self._to_the_end(None)
        except KeyboardInterrupt:
            self._cancel()
            raise
        if record["state"] != "succeeded":
            self._fail(record)

    def _to_the_end(self, timeout_s: float | None) -> dict[str, Any]:
        record: dict[str, Any] = {}
        for record in watch(self._client, self._id, timeout_s=timeout_s):
            self._tell(record)
            seen = (record["state"], record["progress"])
            if is_final(record) or (seen != self._seen and time.monotonic() - self._refreshed_at_s > REFRESH_S):
                self._seen = seen
                self._refresh()
        return record

    def _tell(self, record: dict[str, Any]) -> None:
        if record["message"] != self._message:
            self._message = record["message"]
            self._say(f"Run {self._id}: {self._message}")
        if self._aloud and record["attempts"]:
            attempt = record["attempts"][-1]["n"]
            for piece in read_log(self._client, self._id, attempt=attempt, offset=self._log_places.get(attempt, 0)):
                self._log_places[attempt] = self._log_places.get(attempt, 0) + len(piece.text.encode())
                self._say(piece.text.rstrip("\n"))

    def _say(self, text: str, level: int = logging.INFO) -> None:
        """Log a line of its own: papermill's bar stands on the terminal's last one."""
        bar = self._manager.pbar
        with nullcontext() if bar is None else bar.external_write_mode(file=sys.stderr):
            logger.log(level, text)

    def _refresh(self) -> None:
        """Take the executed cells as they are now, and write the output notebook."""
        self._refreshed_at_s = time.monotonic()
        try:
            executed = self._client.notebook(self._id)
        except NotFound:  # no cell has run yet
            return
        if executed.get("cells"):
            done = take_cells(self._manager.nb, executed)
            if self._manager.pbar is not None:
                self._manager.pbar.total = len(self._manager.nb.cells)
                self._manager.pbar.update(max(0, done - self._manager.pbar.n))
            self._manager.save()

    def _cancel(self) -> None:
        self._say(f"Run {self._id}: cancelling. Once more Ctrl-C ends it at once.", logging.WARNING)
        self._client.cancel(self._id)
        try:
            self._to_the_end(CANCEL_WAIT_S)
        except KeyboardInterrupt:
            self._client.cancel(self._id, now=True)

    def _fail(self, record: dict[str, Any]) -> None:
        """Leave an error in the cell where it ended; papermill finds it there, marks the cell and raises."""
        index = failed_index(self._manager.nb)
        if index is None:
            raise PapermillExecutionError(0, None, "", record["state"], record["message"], [_ending(record)])
        cell = self._manager.nb.cells[index]
        self._manager.cell_exception(cell, cell_index=index)
        if record["state"] != "failed" or not has_error(cell):
            show_ending(cell, record["reason"] or record["state"], record["message"], _ending(record))


def _ending(record: dict[str, Any]) -> str:
    return "\n".join(text for text in (f"Run {record['id']}: {record['message']}", record["hint"]) if text)


@contextmanager
def _quiet_http() -> Iterator[None]:
    """papermill shows every library's news; a line for each request is none."""
    log = logging.getLogger("httpx")
    before = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(before)


@contextmanager
def _input_file(nb: Any, given: object) -> Iterator[Path]:
    """The notebook as a file of this machine: the one papermill has read, else a copy in a folder of its own."""
    if isinstance(given, str) and "://" not in given and given != "-":
        # papermill changes into --cwd before it calls an engine; its reader knows where the path began.
        reader = papermill_io.get_handler("local")
        begin = reader.cwd(None)
        reader.cwd(begin)
        path = Path(begin or ".", given).absolute()
        if path.suffix == ".ipynb" and path.is_file():
            yield path
            return
    with tempfile.TemporaryDirectory(prefix="atelier-") as folder:
        copy = Path(folder) / "notebook.ipynb"
        own = nbformat.from_dict(dict(nb))  # type: ignore[no-untyped-call]
        own.cells = [cell for cell in nb.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
        nbformat.write(own, copy)  # type: ignore[no-untyped-call]
        yield copy


def _order(metadata: object, environ: Mapping[str, str]) -> Order:
    """The options of a submit, each as `atelier.submission.option_of` says."""
    written = _checked(metadata)
    for name in _OPTIONS:
        value = option_of(name, environ, written)
        if value is not None:
            written[name] = _whole_number(name, value) if name in _WHOLE_NUMBERS and isinstance(value, str) else value
    return Order(**written)


def _checked(metadata: object) -> dict[str, Any]:
    known = [field.name for field in fields(Order)]
    if not isinstance(metadata, Mapping):
        raise _bad_metadata("it is no mapping", known)
    for name, value in metadata.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            raise _bad_metadata(f"{name!r} is unknown" + (f"; did you mean {near[0]!r}?" if near else ""), known)
        if name in _WHOLE_NUMBERS and type(value) is not int:
            raise _bad_metadata(f"{name!r} is no whole number", known)
    return dict(metadata)


def _bad_metadata(why: str, known: list[str]) -> RefusedInput:
    return RefusedInput(
        "bad_metadata",
        f"The notebook's metadata 'atelier' can't be used: {why}.",
        hint=f"Known: {', '.join(known)}.",
        detail={"known": known},
    )


def _whole_number(name: str, text: str) -> int:
    if not text.removeprefix("-").isdecimal():
        raise RefusedInput(
            "bad_metadata", f"ATELIER_{name.upper()}={text!r} is no whole number.", hint="Write digits only."
        )
    return int(text)
