"""Views of what the service knows, as MIME bundles: ids for the live view, the state of this moment for other viewers.

The labextension draws the live view from the ids, so it comes back after a closed tab or a dead kernel and in an
untrusted notebook; a viewer that doesn't know it shows the HTML or the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from atelier.display import text_table
from atelier.errors import RefusedInput
from atelier.records import RUN_ID, RunState
from atelier.widgets import static

RUN_TYPE = "application/vnd.atelier.run+json"
RUNS_TYPE = "application/vnd.atelier.runs+json"
MODEL_TYPE = "application/vnd.atelier.model+json"

Record = BaseModel | Mapping[str, Any]
Bundle = dict[str, Any]


def run_bundle(run: Record, *, curves: Mapping[str, static.Curve] | None = None) -> Bundle:
    """The bundle of one run.

    Parameters
    ----------
    run : Run or mapping
        The record, or its JSON.
    curves : mapping, optional
        Metric → ``[[step, value, time], …]``, drawn small in the static view.
    """
    record = _json(run)
    return {
        RUN_TYPE: {"id": record["id"]},
        "text/html": static.run_html(record, curves or {}),
        "text/plain": _run_text(record),
    }


def runs_bundle(runs: Sequence[Record], *, ids: Sequence[str] | None = None, state: str | None = None) -> Bundle:
    """The bundle of a list of runs.

    Parameters
    ----------
    runs : sequence of Run or mapping
        What the static view shows.
    ids : sequence of str, optional
        The runs of the live view; all of the user's when not given.
    state : str, optional
        Shows only runs in that state.
    """
    records = [_json(run) for run in runs]
    return {
        RUNS_TYPE: {"ids": None if ids is None else list(ids), "state": state},
        "text/html": static.runs_html(records),
        "text/plain": _runs_text(records),
    }


def model_bundle(version: Record) -> Bundle:
    """The bundle of a model version (`atelier.records.ModelVersion`, or its JSON)."""
    record = _json(version)
    formats = ", ".join(record["card"].get("formats", {})) or "no formats"
    return {
        MODEL_TYPE: {"name": record["name"], "version": record["version"]},
        "text/html": static.model_html(record),
        "text/plain": f"model {record['name']} version {record['version']}: {formats}",
    }


class RunView:
    """A live view of one run.

    Parameters
    ----------
    run : str or RunHandle
        Its id, a unique beginning of it, ``"last"``, or what `atelier.submit` returned.

    Examples
    --------
    >>> atelier.widgets.RunView("last")  # doctest: +SKIP
    """

    def __init__(self, run: Any = "last") -> None:
        self._handle = _handle(run) if isinstance(run, str) else run

    def __repr__(self) -> str:
        return repr(self._handle)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Bundle:
        return run_bundle(self._handle.record)


class RunList:
    """A live list of runs: those given, else all of the user's.

    Parameters
    ----------
    runs : sequence of str or RunHandle, optional
        Ids or handles; a list that grows is all of them.
    state : str, optional
        Shows only runs in that state, e.g. ``"running"``.

    Examples
    --------
    >>> atelier.widgets.RunList(state="failed")  # doctest: +SKIP
    """

    def __init__(self, runs: Sequence[Any] | None = None, *, state: str | None = None) -> None:
        self._ids = None if runs is None else [_checked_id(run) for run in runs]
        self._state = None if state is None else _checked_state(state)

    def __repr__(self) -> str:
        return _runs_text(self._records())

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Bundle:
        return runs_bundle(self._records(), ids=self._ids, state=self._state)

    def _records(self) -> list[dict[str, Any]]:
        if self._ids is None:
            from atelier.api import runs

            return [_json(handle.record) for handle in runs(state=self._state)]
        records = [_json(_handle(run_id).record) for run_id in self._ids]
        return [record for record in records if self._state in {None, record["state"]}]


def _handle(which: str) -> Any:
    from atelier.api import run

    return run(which)


def _checked_id(run: Any) -> str:
    text = str(getattr(run, "id", run))
    if not RUN_ID.fullmatch(text):
        raise RefusedInput("bad_run_id", f"{text[:60]!r} is no run id.", hint="It is r- and ten letters, as in run.id.")
    return text


def _checked_state(state: str) -> str:
    known = [one.value for one in RunState]
    if state not in known:
        raise RefusedInput("unknown_state", f"There is no state {state[:60]!r}.", hint=f"Known: {', '.join(known)}.")
    return state


def _json(record: Record) -> dict[str, Any]:
    return record.model_dump(mode="json") if isinstance(record, BaseModel) else dict(record)


def _run_text(run: Mapping[str, Any]) -> str:
    words = [f"run {run['id']} {run['name']}: {static.state_words(run).lower()}", static.progress_words(run)]
    whole = static.sentence({**run, "attempts": []})  # there is no card of the error in a plain text
    return "\n".join(filter(None, [", ".join(filter(None, words)), whole]))


def _runs_text(runs: Sequence[Mapping[str, Any]]) -> str:
    if not runs:
        return "no runs yet"
    rows = [
        [run["id"], run["name"], static.state_words(run), static.moment_words(run.get("started_at"))] for run in runs
    ]
    return text_table(["id", "name", "state", "started"], rows)
