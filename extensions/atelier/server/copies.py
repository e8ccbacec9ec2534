"""Copying what a run made back beside its notebook."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import quote

import httpx

from atelier.errors import Conflict, NotFound, RefusedInput
from atelier.records import RUN_ID
from atelier.server.folders import new_file, path_below, relative_parts
from atelier.server.link import ServiceLink, read_json, unreachable


@dataclass(frozen=True)
class CopyOrder:
    """What to copy, and whereto.

    Parameters
    ----------
    run : str
        Run id.
    artifact : str or None
        Path of the artifact; None is the executed notebook.
    beside : str or None
        Path of a notebook below the server's folder; used when the run's own folder is not there.
    name : str or None
        Path to write, relative to that folder; None is the artifact's own.
    replace : bool
        Whether a file of that name may be replaced.
    """

    run: str
    artifact: str | None = None
    beside: str | None = None
    name: str | None = None
    replace: bool = False

    @classmethod
    def read(cls, body: dict[str, Any]) -> CopyOrder:
        """An order out of a request's body; RefusedInput ``bad_order`` names the wrong field."""
        texts = {field: body.get(field) for field in ("artifact", "beside", "name")}
        wrong = [field for field, value in texts.items() if not isinstance(value, str | None)]
        run, replace = body.get("run"), body.get("replace", False)
        if not isinstance(run, str) or not RUN_ID.fullmatch(run):
            wrong.append("run")
        if not isinstance(replace, bool):
            wrong.append("replace")
        wrong += sorted(set(body) - {*texts, "run", "replace"})
        if wrong:
            raise RefusedInput("bad_order", f"Wrong or unknown: {', '.join(wrong)}.", hint="Reload the page.")
        return cls(str(run), **texts, replace=replace)


async def copy_back(link: ServiceLink, order: CopyOrder, root: Path) -> dict[str, Any]:
    """Writes one file of a run beside its notebook, whole or not at all, and tells where.

    Returns
    -------
    dict
        ``{"path": path below the server's folder, "size_bytes": n}``

    Raises
    ------
    Conflict
        ``file_exists``: nothing was changed; the detail has its ``path`` and ``free``, a name that is free.
    """
    run = await link.json("GET", f"/runs/{order.run}")
    folder = _folder_of(run, order, root)
    parts = relative_parts(order.name or order.artifact or _notebook_name(run))
    path = (folder.relative_to(root) / Path(*parts)).as_posix()
    response = await link.open("GET", _address(order), headers={"Accept-Encoding": "identity"})
    try:
        if response.status_code != 200:
            await read_json(response)
        with new_file(folder, parts, replace=order.replace) as file:
            size_bytes = await _write_all(response, file)
    except Conflict as problem:
        problem.detail["path"] = path
        raise
    finally:
        await response.aclose()
    return {"path": path, "size_bytes": size_bytes}


def _address(order: CopyOrder) -> str:
    if order.artifact is None:
        return f"/runs/{order.run}/notebook"
    return f"/runs/{order.run}/artifacts/{quote('/'.join(relative_parts(order.artifact)))}"


def _notebook_name(run: dict[str, Any]) -> str:
    """``train.ipynb`` of run ``r-abc`` becomes ``train.r-abc.ipynb``: never the notebook that was submitted."""
    target = PurePosixPath(run["spec"]["work"]["target"])
    if target.suffix != ".ipynb":
        raise NotFound("no_notebook", "This run is not a notebook.", hint="Its files and its log are all there is.")
    return f"{target.stem}.{run['id']}.ipynb"


def _folder_of(run: dict[str, Any], order: CopyOrder, root: Path) -> Path:
    """The folder of the run's work if it is below the server's folder, else that of the notebook that shows the run."""
    submitted: str | None = (run.get("source") or {}).get("root")
    if submitted:
        folder = Path(submitted, str(run["spec"]["work"].get("folder", "."))).resolve()
        if folder.is_dir() and folder.is_relative_to(root.resolve()):
            return root / folder.relative_to(root.resolve())
    if order.beside is None:
        raise NotFound(
            "no_folder",
            "The folder that this run was submitted from is not on this server.",
            hint="Download the file instead.",
        )
    return path_below(root, order.beside).parent


async def _write_all(response: httpx.Response, file: BinaryIO) -> int:
    size_bytes = 0
    try:
        async for chunk in response.aiter_raw(2**20):
            await asyncio.to_thread(file.write, chunk)
            size_bytes += len(chunk)
    except httpx.TransportError as problem:
        raise unreachable(problem) from problem
    return size_bytes
