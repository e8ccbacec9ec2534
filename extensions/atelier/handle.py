"""What ``atelier.submit`` and ``atelier.run`` return: a run as an object that knows its service."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from atelier.client import Client
from atelier.display.bundles import run_bundle, runs_bundle
from atelier.display.terminal import HarmlessText
from atelier.display.text import Rows, ago, lasted, run_progress_text
from atelier.errors import Conflict, NotFound, RefusedInput, RunFailed, StillRunning
from atelier.following import follow_log, is_older, read_log, read_logs, watch
from atelier.quantities import format_bytes
from atelier.records import Artifact, Attempt, ErrorReport, Progress, Reason, Run, RunState

FRESH_S = 0.2
"""How long a record is taken for the present; a loop over several properties asks the service once."""


class RunHandle:
    """A run in the background.

    Properties ask the service when what is known is older than 0.2 s; a final run is never asked for again. Two
    handles of the same run are equal.

    Parameters
    ----------
    client : Client
        The service that has it.
    record : dict
        The run's record as the service gave it.

    Examples
    --------
    >>> run = atelier.submit("train.ipynb", params={"epochs": 5})  # doctest: +SKIP
    >>> run.wait().metrics()  # doctest: +SKIP
    """

    def __init__(self, client: Client, record: dict[str, Any]) -> None:
        self._client = client
        self._told = record
        self._record = record_from(record)
        self._read_at = time.monotonic()

    def _take(self, record: dict[str, Any]) -> None:
        """Take what the service told, unless something newer is known."""
        if not is_older(record, self._told):
            self._told, self._record = record, record_from(record)
        self._read_at = time.monotonic()

    @property
    def record(self) -> Run:
        """The whole record, at most 0.2 s old."""
        if not self._record.state.is_final and time.monotonic() - self._read_at > FRESH_S:
            self._take(self._client.run(self.id))
        return self._record

    @property
    def id(self) -> str:
        """``r-`` and ten letters."""
        return self._record.id

    @property
    def name(self) -> str:
        """What the user called it, else the work's name."""
        return self._record.name

    @property
    def state(self) -> RunState:
        """Where it is; also its own string: ``run.state == "running"``."""
        return self.record.state

    @property
    def reason(self) -> Reason | None:
        """Why it waits or why it ended so; None when there is nothing to explain."""
        return self.record.reason

    @property
    def message(self) -> str:
        """The state in one plain sentence."""
        return self.record.message

    @property
    def queue_position(self) -> int | None:
        """In which order it is tried, from 1 over all users; None unless it waits."""
        return self.record.queue_position

    @property
    def progress(self) -> Progress | None:
        """How far it says it is; ``left_s`` is None until two points are known."""
        return self.record.progress

    @property
    def params(self) -> dict[str, Any]:
        """The parameters it was submitted with."""
        return dict(self._record.spec.params)

    @property
    def attempts(self) -> list[Attempt]:
        """Every try at it, oldest first."""
        return self.record.attempts

    @property
    def error(self) -> ErrorReport | None:
        """The user's own traceback of the last attempt, if it raised."""
        attempts = self.attempts
        return attempts[-1].error if attempts else None

    @property
    def warnings(self) -> list[str]:
        """What was noticed at submit or later."""
        record = self.record
        return list(dict.fromkeys([*record.source.warnings, *record.warnings]))

    def wait(self, timeout_s: float | None = None) -> RunHandle:
        """Block until the run is final, and return this handle, whatever the outcome. Ctrl-C leaves the run alone.

        Parameters
        ----------
        timeout_s : float, optional
            Give up waiting after so many seconds; for ever when not given.

        Raises
        ------
        StillRunning
            ``still_running`` (a TimeoutError): the time is over; the run goes on.
        """
        if self._is_final():
            return self
        with self._interruptible():
            for record in watch(self._client, self.id, timeout_s=timeout_s):
                self._take(record)
        if not self._is_final():
            raise StillRunning(
                "still_running",
                f"The run {self.id} is {self._record.state} after {timeout_s} s of waiting.",
                hint=f"It goes on; wait again with atelier.run({self.id!r}).wait().",
            )
        return self

    def _is_final(self) -> bool:
        return self._record.state.is_final

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            print(
                f"The run {self.id} goes on. Follow it with atelier.run({self.id!r}).wait(), or in a terminal with"
                f" 'atelier logs -f {self.id}'; end it with .cancel().",
                file=sys.stderr,
            )
            raise

    def logs(self, follow: bool = False, *, attempt: int | None = None) -> str:
        """The text that all attempts have written, one after another as it was written.

        Parameters
        ----------
        follow : bool
            Print every attempt's text as it comes until the run is final (of its control sequences only the colours),
            and return all of it, as it was written.
        attempt : int, optional
            Only this one's.
        """
        if not follow:
            if attempt is not None:
                return "".join(piece.text for piece in read_log(self._client, self.id, attempt=attempt))
            return "".join(piece.text for piece in read_logs(self._client, self.id, len(self.record.attempts)))
        pieces, shown = [], HarmlessText(colours=True)
        with self._interruptible():
            for piece in follow_log(self._client, self.id):
                if attempt not in {None, piece.attempt}:
                    continue
                print(shown.feed(piece.text), end="", flush=True)
                pieces.append(piece.text)
        print(shown.end(), end="", flush=True)
        return "".join(pieces)

    def metrics(self) -> Any:
        """Every logged point: a pandas DataFrame, or a list of dicts where pandas is not installed.

        Returns
        -------
        DataFrame, columns ``name`` str, ``step`` Int64, ``value`` float64 (NaN where it was not finite), ``time``
        datetime64 UTC; in the order of the names and then of logging.
        """
        rows = [
            {"name": name, "step": step, "value": value, "time": moment}
            for name in self._client.metrics(self.id)["names"]
            for step, value, moment in self._client.metrics(self.id, name=name)["points"]
        ]
        return _frame(rows) if importlib.util.find_spec("pandas") else rows

    @property
    def artifacts(self) -> Rows[Artifact]:
        """The files that it left, each with path, size, sha256 and kind."""
        entries = (Artifact.model_validate(entry, extra="ignore") for entry in self._client.artifacts(self.id))
        return Rows(entries, _ARTIFACT_COLUMNS, empty="no artifacts")

    def fetch(self, out: str | Path | None = None, *, paths: list[str] | None = None) -> list[Path]:
        """Copy artifacts into a folder; each file comes whole or not at all, an existing one is replaced.

        Parameters
        ----------
        out : path, optional
            The folder, made when missing; one named like the run's id when not given.
        paths : list of str, optional
            Only these artifacts.

        Returns
        -------
        list of Path
            The files written.

        Raises
        ------
        NotFound
            ``unknown_artifact``: one of ``paths`` is not there; nothing is written then.
        RefusedInput
            ``path_escapes``: an artifact's path leads out of the folder.
        """
        return self._client.fetch(self.id, Path(out or self.id), paths=paths)

    def cancel(self, now: bool = False) -> RunHandle:
        """Ask the run to stop; with ``now`` end it at once. Calling it twice, or on a final run, does no harm."""
        self._take(self._client.cancel(self.id, now=now))
        return self

    def pin(self) -> RunHandle:
        """Keep the run until it is deleted by hand, whatever the platform's retention says; twice does no harm."""
        self._take(self._client.pin(self.id))
        return self

    def unpin(self) -> RunHandle:
        """Let retention take the run as any other."""
        self._take(self._client.pin(self.id, pinned=False))
        return self

    def move(
        self, to: str | None = None, *, before: RunHandle | str | None = None, priority: int | None = None
    ) -> RunHandle:
        """Change the waiting run's place among your own; others' runs stay where they are. One of the three is given.

        Parameters
        ----------
        to : {"first", "last"}, optional
            Before or behind all your others. ``"first"`` also ends its pause before the next attempt.
        before : RunHandle or str, optional
            Right before this one, at its priority.
        priority : int, optional
            -100 to 100; higher goes first.

        Raises
        ------
        RefusedInput
            ``bad_move``: none of them, or more than one.
        Conflict
            ``not_waiting``: it has begun or ended.
        """
        named = before.id if isinstance(before, RunHandle) else before
        given = {"to": to, "before": named, "priority": priority}
        places = {name: value for name, value in given.items() if value is not None}
        if len(places) != 1:
            hint = "For example run.move('first'), run.move(before=other) or run.move(priority=5)."
            raise RefusedInput("bad_move", f"A move leads to one place, and {len(places)} were given.", hint=hint)
        self._take(self._client.move(self.id, to if to is not None else places))
        return self

    def result(self, timeout_s: float | None = None) -> Any:
        """Wait for a function's run and return what the function returned (JSON).

        Raises
        ------
        RunFailed
            ``run_failed``: the run ended otherwise; the message is the user's traceback.
        Conflict
            ``no_result``: it succeeded, and is not a run of a function that returned JSON.
        StillRunning
            ``still_running``: the time is over.
        """
        record = self.wait(timeout_s)._record
        if record.state is not RunState.SUCCEEDED:
            raise RunFailed("run_failed", failure_text(record), hint=record.hint, detail={"run": record.id})
        try:
            return self._client.artifact_json(self.id, "result.json")
        except NotFound as problem:
            raise Conflict(
                "no_result",
                f"The run {self.id} is a {record.spec.work.kind}, and left no result.",
                hint="Only a function returns one; look at .artifacts and .metrics().",
            ) from problem

    def notebook(self) -> dict[str, Any]:
        """The executed notebook (nbformat 4 JSON) as it is now, with all outputs until now."""
        return self._client.notebook(self.id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunHandle) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        record = self._record
        head = f"{record.id}  {record.name}  {record.state}"
        progress = run_progress_text(record.model_dump(mode="json", include=_SHOWN_PROGRESS))
        return "\n".join(
            [f"{head}  {progress}".rstrip(), failure_text(record) if _failed(record) else record.message]
        ).rstrip()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """The live view of the run; text and HTML are the state at this moment."""
        record = self.record
        text = repr(self)
        return {**run_bundle(record), "text/plain": text}


class Runs(Rows[RunHandle]):
    """Several runs: a list that shows itself, live where a front end can, and that can be waited for.

    Parameters
    ----------
    handles : iterable of RunHandle
        The runs.
    state : str, optional
        The only state that the live view shows.
    """

    def __init__(self, handles: Iterable[RunHandle], *, state: str | None = None) -> None:
        super().__init__(handles, _RUN_COLUMNS, empty="no runs yet")
        self._state = state

    def wait(self, timeout_s: float | None = None) -> Runs:
        """Block until all are final, whatever the outcomes; raises and is interrupted as `RunHandle.wait`."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for handle in self:
            handle.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return self

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        view = runs_bundle([handle.record for handle in self], state=self._state)
        return {**view, "text/plain": repr(self)}


def record_from(body: dict[str, Any]) -> Run:
    """The record in an answer; a field that a newer service adds is left out."""
    return Run.model_validate(body, extra="ignore")


def _failed(record: Run) -> bool:
    return record.state.is_final and record.state is not RunState.SUCCEEDED


def failure_text(record: Run) -> str:
    """The run's sentence, and the traceback of its last attempt if there is one."""
    error = record.attempts[-1].error if record.attempts else None
    return "\n".join(filter(None, [record.message, error.traceback if error else ""]))


def _frame(rows: list[dict[str, Any]]) -> Any:
    import pandas as pd

    frame = pd.DataFrame(rows, columns=["name", "step", "value", "time"])
    frame["time"] = pd.to_datetime(frame["time"].astype("float64"), unit="s", utc=True)
    return frame.astype({"name": "str", "step": "Int64", "value": "float64"})


_ARTIFACT_COLUMNS: dict[str, Callable[[Artifact], str]] = {
    "path": lambda entry: entry.path,
    "size": lambda entry: format_bytes(entry.size_bytes),
    "kind": lambda entry: entry.kind,
    "made": lambda entry: ago(entry.created_at),
}
_SHOWN_PROGRESS = {"state", "progress", "ended_at"}
_SHOWN_TIME = {"state", "started_at", "ended_at", "attempts"}
_RUN_COLUMNS: dict[str, Callable[[RunHandle], str]] = {
    "run": lambda handle: handle.id,
    "name": lambda handle: handle.name,
    "state": lambda handle: str(handle.state),
    "progress": lambda handle: run_progress_text(handle.record.model_dump(mode="json", include=_SHOWN_PROGRESS)),
    "submitted": lambda handle: ago(handle.record.created_at),
    "took": lambda handle: lasted(handle.record.model_dump(mode="json", include=_SHOWN_TIME)),
    "image": lambda handle: handle.record.image,
    "machine": lambda handle: handle.record.machine,
}
