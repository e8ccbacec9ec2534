"""Waits until a notebook on the disk is the one that a page shows: it is often written by somebody else than the page.

A notebook that is open for collaboration is written by the server some time after each change, and says "saved" of an
older state while newer letters are on their way. Only its content tells.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from atelier.errors import Conflict, RefusedInput

LIMIT_S = 15.0
EVERY_S = 0.1
TRIES = 5
CUT_SHORT = frozenset({"bad_notebook", "empty_work"})


def read_sources(told: Any) -> list[str] | None:
    """The sources of all cells as a page sends them; None when it sends none.

    Raises
    ------
    RefusedInput
        ``bad_sources``: no list of texts.
    """
    if told is None:
        return None
    if not isinstance(told, list) or not all(isinstance(source, str) for source in told):
        raise RefusedInput("bad_sources", "The sources of the cells are not a list of texts.", hint="Reload the page.")
    return told


async def submit_written(path: Path, sources: list[str] | None, *, submit: Callable[[], str]) -> str:
    """What ``submit`` gives, called in a thread when the file has the sources.

    Jupyter writes a file in place, so another save may cut it short just then. What the page shows is no broken
    notebook, hence such an error is tried again.
    """
    for _ in range(TRIES if sources is not None else 0):
        await until_written(path, sources or [])
        try:
            return await asyncio.to_thread(submit)
        except RefusedInput as problem:
            if problem.code not in CUT_SHORT:
                raise
            await asyncio.sleep(EVERY_S)
    return await asyncio.to_thread(submit)


async def until_written(path: Path, sources: list[str], *, limit_s: float = LIMIT_S) -> None:
    """Returns when the cells of a notebook file have these sources.

    Raises
    ------
    Conflict
        ``not_saved``: they don't within the time.
    """
    deadline = asyncio.get_running_loop().time() + limit_s
    while await asyncio.to_thread(_sources_of, path) != sources:
        if asyncio.get_running_loop().time() > deadline:
            raise Conflict(
                "not_saved",
                f"{path.name} on the disk is not yet what the page shows.",
                hint="Wait until it is saved, and try again.",
            )
        await asyncio.sleep(EVERY_S)


def _sources_of(path: Path) -> list[str] | None:
    """The sources of all cells; None for a file that is just being written, or is no notebook."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return ["".join(cell["source"]) for cell in cells]
    except (OSError, ValueError, KeyError, TypeError):
        return None
