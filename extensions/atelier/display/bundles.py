"""Runs and models as MIME bundles: ids for the live view, the state of this moment for other viewers.

The labextension draws the live view from the ids, so it comes back after a closed tab or a dead kernel and in an
untrusted notebook; a viewer that doesn't know it shows the HTML or the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from atelier.display import static
from atelier.display.evidence import facts, is_explained, sentence, state_words
from atelier.display.text import run_progress_text, text_table

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
    record = as_json(run)
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
    records = [as_json(run) for run in runs]
    return {
        RUNS_TYPE: {"ids": None if ids is None else list(ids), "state": state},
        "text/html": static.runs_html(records),
        "text/plain": runs_text(records),
    }


def as_json(record: Record) -> dict[str, Any]:
    return record.model_dump(mode="json") if isinstance(record, BaseModel) else dict(record)


def _run_text(run: Mapping[str, Any]) -> str:
    words = [f"run {run['id']} {run['name']}: {state_words(run).lower()}", run_progress_text(run)]
    lines = [", ".join(filter(None, words)), sentence(run)]
    if is_explained(run):
        lines.append(", ".join(f"{name.lower()} {value}" for name, value in facts(run)))
    return "\n".join(filter(None, lines))


def runs_text(runs: Sequence[Mapping[str, Any]]) -> str:
    if not runs:
        return "no runs yet"
    rows = [[run["id"], run["name"], state_words(run), static.moment_words(run.get("started_at"))] for run in runs]
    return text_table(["id", "name", "state", "started"], rows)
