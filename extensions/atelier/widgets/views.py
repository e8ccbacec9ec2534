"""``RunView`` and ``RunList``: live views of runs that are named by their ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from atelier.display.bundles import Bundle, as_json, run_bundle, runs_bundle, runs_text
from atelier.errors import RefusedInput
from atelier.records import RUN_ID, RunState


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
        return runs_text(self._records())

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Bundle:
        return runs_bundle(self._records(), ids=self._ids, state=self._state)

    def _records(self) -> list[dict[str, Any]]:
        if self._ids is None:
            from atelier.api import runs

            return [as_json(handle.record) for handle in runs(state=self._state)]
        records = [as_json(_handle(run_id).record) for run_id in self._ids]
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
