"""From what a user types to one run or one model version: an id, a unique beginning, ``last``; ``NAME@ALIAS``."""

from __future__ import annotations

import difflib
import re
from contextlib import suppress
from typing import Any

from atelier.client import Client
from atelier.errors import NotFound

_REFERENCE = re.compile(r"r-[a-z2-7]{1,10}")

LOOKED_AT = 1000
"""So many newest runs are looked through for what an unknown id may have meant."""


def resolve_run(client: Client, which: str) -> dict[str, Any]:
    """The record of the run that a user means: an id, a unique beginning with or without ``r-``, or ``last``.

    Raises
    ------
    NotFound
        ``unknown_run`` with the nearest ids, ``no_runs``.
    RefusedInput
        ``ambiguous_run``: several runs begin so.
    """
    text = which.strip().lower()
    if text == "last":
        return _last(client)
    wanted = text if text.startswith("r-") else f"r-{text}"
    if _REFERENCE.fullmatch(wanted):
        with suppress(NotFound):
            return client.run(wanted)
    raise _unknown(which, wanted, list(client.newest_runs(limit=LOOKED_AT)))


def _last(client: Client) -> dict[str, Any]:
    newest = next(client.newest_runs(limit=1), None)
    if newest is None:
        raise NotFound("no_runs", "You have no runs yet.", hint="Make one with 'atelier submit train.ipynb'.")
    return newest


def _unknown(which: str, wanted: str, records: list[dict[str, Any]]) -> NotFound:
    known = [record["id"] for record in records]
    named = [record["id"] for record in records if which.strip().lower() == record["name"].lower()][:3]
    near = named or difflib.get_close_matches(wanted, known, 3)
    hint = f"Did you mean {', '.join(near)}?" if near else "An id is as r-abcdefghij; see 'atelier runs'."
    if named:
        hint = f"That is a name; runs are told apart by their ids. The newest of that name: {', '.join(named)}."
    return NotFound("unknown_run", f"You have no run {which!r}.", hint=hint, detail={"nearest": near})


def resolve_model(client: Client, which: str) -> dict[str, Any]:
    """The version that ``NAME``, ``NAME@3`` or ``NAME@production`` means; NAME alone is the newest.

    Raises
    ------
    NotFound
        ``unknown_model`` or ``unknown_version``, with what is known.
    """
    name, _, wanted = which.partition("@")
    try:
        versions = client.model(name)
    except NotFound:
        versions = []
    if not versions:
        raise _unknown_model(client, name)
    for version in versions:
        if not wanted or str(version["version"]) == wanted.removeprefix("v") or wanted in version["aliases"]:
            return version
    known = [str(version["version"]) for version in versions] + [
        alias for entry in versions for alias in entry["aliases"]
    ]
    raise NotFound(
        "unknown_version",
        f"The model {name!r} has no version or alias {wanted!r}.",
        hint=f"It has: {', '.join(known)}.",
    )


def _unknown_model(client: Client, name: str) -> NotFound:
    known = [entry["name"] for entry in client.models()]
    near = difflib.get_close_matches(name, known, 1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known) or 'none'}."
    return NotFound("unknown_model", f"You have no model {name!r}.", hint=hint, detail={"known": known})
