"""Attempts that are at work in a home which is to become another: what they tell would fit neither record."""

from __future__ import annotations

import asyncio
from pathlib import Path

from atelier.errors import Conflict
from atelier.service.backends import Key, Sign
from atelier.service.backends.local import LocalBackend

_MOST_NAMED = 5


def refuse_living(home: Path, *, end: bool) -> None:
    """Refuse a home in which agents live, or end them; what dead ones have left there is ended in any case.

    Raises
    ------
    Conflict
        ``runs_at_work``.
    """
    asyncio.run(_refuse_living(LocalBackend(home, {}), home, end=end))


async def _refuse_living(backend: LocalBackend, home: Path, *, end: bool) -> None:
    living = await _living(backend)
    if end:
        for key in living:
            await backend.kill(key)
        living = await _living(backend)
    if living:
        names = ", ".join(key.run_id for key in living[:_MOST_NAMED]) + (" …" if living[_MOST_NAMED:] else "")
        raise Conflict(
            "runs_at_work",
            f"Runs are at work in {home}: {names}. What they have told since the backup would be lost.",
            hint="Cancel them or wait for their end, then stop the service again; or --end-runs ends them as they are.",
        )
    for key in await backend.leftovers():
        await backend.kill(key)


async def _living(backend: LocalBackend) -> list[Key]:
    signs = await backend.observe(await backend.leftovers())
    return sorted(key for key, sign in signs.items() if sign is Sign.ALIVE)
