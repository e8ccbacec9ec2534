"""``/roots``: browse and preview the catalog's data roots and the folders of the caller's runs."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from atelier.data import previews, roots
from atelier.errors import NotFound
from atelier.service.callers import Caller
from atelier.service.description import sends
from atelier.service.handlers.context import Parts, User
from atelier.service.handlers.downloads import safe_headers
from atelier.settings import may_use
from atelier.storage import RunPaths

router = APIRouter(prefix="/roots")
PART_BYTES = 1 << 20
LARGEST_BUDGET = 16
"""A caller may ask for a budget that many times as large as a preview's usual one."""


def open_root(service: Parts, user: Caller, name: str) -> roots.Root:
    """A root by its name, ``datasets/<name>`` or ``runs/<id>``, when the caller may see it.

    Raises
    ------
    NotFound
        ``unknown_root``, also for one that he may not see.
    """
    kind, _, rest = name.partition("/")
    if kind == "runs" and rest:
        run = service.runs.resolve(user.owner, rest)
        return roots.run_root(run.id, service.blobs.read_url(RunPaths(run.id).root))
    for entry in service.runs.catalog.roots:
        if kind == "datasets" and entry.name == rest and may_use(entry, user.groups):
            return roots.catalog_root(entry)
    known = [f"datasets/{entry.name}" for entry in service.runs.catalog.roots if may_use(entry, user.groups)]
    raise NotFound(
        "unknown_root",
        f"There is no root {name[:100]!r} for you.",
        hint=f"Known: {', '.join(known) or 'none'}, runs/<id>.",
    )


@router.get("")
def list_roots(service: Parts, user: User) -> dict[str, Any]:
    """The roots of the catalog that the caller may see."""
    mine = [entry for entry in service.runs.catalog.roots if may_use(entry, user.groups)]
    return {
        "items": [
            {"name": f"datasets/{entry.name}", "title": entry.title or entry.name, "writable": entry.writable}
            for entry in mine
        ],
        "next": None,
    }


@router.get("/{root:path}/list")
def list_folder(
    root: str, *, service: Parts, user: User, path: str = "", limit: int = 200, page: str | None = None
) -> dict[str, Any]:
    """One page of a folder."""
    return roots.list_folder(open_root(service, user, root), path, limit=limit, page=page)


@router.get("/{root:path}/preview")
async def preview(
    root: str, *, service: Parts, user: User, path: str, rows: int = 50,
    columns: Annotated[list[str] | None, Query()] = None,
    budget_bytes: Annotated[int | None, Query(ge=1)] = None, plan_only: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """A look at a file, within a budget; with ``plan_only`` just what it would read. Few at once, others wait."""
    limits = service.settings.limits
    budget = min(budget_bytes or limits.preview_bytes, LARGEST_BUDGET * limits.preview_bytes, previews.MAX_BUDGET_BYTES)

    def look() -> dict[str, Any]:
        place = open_root(service, user, root)
        options: dict[str, Any] = {"rows": rows, "columns": columns, "budget_bytes": budget}
        return (previews.plan if plan_only else previews.preview)(place, path, budget_s=limits.preview_time, **options)

    async with service.previews:
        return await asyncio.to_thread(look)


@router.get("/{root:path}/file", **sends("application/octet-stream", ranges=False))
def read_file(root: str, request: Request, service: Parts, user: User, path: str) -> StreamingResponse:
    """A file's bytes, as an attachment."""
    source = open_root(service, user, root).open(path)

    def parts() -> Any:
        offset = 0
        try:
            while data := source.read(offset, PART_BYTES):
                offset += len(data)
                yield data
        finally:
            source.close()

    return StreamingResponse(
        parts(), headers=safe_headers(path.rsplit("/", 1)[-1]), media_type="application/octet-stream"
    )
