"""The functions that a notebook calls: submit work, find runs, see the catalog, export a model."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from atelier.client import Client
from atelier.display.text import Rows, ago
from atelier.errors import RunFailed, StillRunning
from atelier.handle import RunHandle, Runs
from atelier.quantities import format_bytes
from atelier.records import ModelVersion
from atelier.resolving import resolve_run
from atelier.submission import Order, prepare, send

__all__ = [
    "RunFailed",
    "RunHandle",
    "StillRunning",
    "SubmitWarning",
    "catalog",
    "export",
    "models",
    "run",
    "runs",
    "submit",
]


class SubmitWarning(UserWarning):
    """Something about the submitted code that may not be what its author wants."""


def submit(
    work: str | Path,
    params: Mapping[str, Any] | None = None,
    *,
    image: str | None = None,
    machine: str | None = None,
    nodes: int = 1,
    retries: int = 0,
    retry_on: str | Sequence[str] = (),
    priority: int = 0,
    timeout: float | str | None = None,
    queue_timeout: float | str | None = None,
    stall_timeout: float | str | None = None,
    name: str | None = None,
    project: str | None = None,
    data: Sequence[str] = (),
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> RunHandle:
    """Run a notebook, script, module or function in the background, with the code as it is now.

    Parameters
    ----------
    work : str or path
        ``train.ipynb``, ``train.py``, ``package.module`` or ``package.module:function``.
    params : mapping, optional
        JSON values for the notebook's parameters cell, the script's options or the function's arguments.
    image, machine : str, optional
        Names of `catalog`; those of this server, else the catalog's default.
    nodes, retries : int
        How many machines run it together; new attempts after a failure.
    retry_on : str or sequence of str, optional
        Reasons after which it is tried again, or ``"any"``; those that may pass by themselves when not given.
    priority : int
        -100 to 100: orders your own waiting runs; higher goes first.
    timeout, queue_timeout, stall_timeout : seconds or str, optional
        ``"2h"``: limits for running (all attempts), for waiting in the queue, for being silent.
    name, project, data : optional
        What lists show, whose it is, dataset versions that it reads.
    include, exclude : sequence of str
        Patterns of files, beside or out of what is found to belong to the work.

    Returns
    -------
    RunHandle
        The run, queued. Each call makes a new one.

    Raises
    ------
    RefusedInput
        The work or a value can't be taken; nothing was queued.

    Examples
    --------
    >>> run = atelier.submit("train.ipynb", params={"epochs": 5}, machine="cpu-small")  # doctest: +SKIP
    """
    order = Order(
        image=image, machine=machine, nodes=nodes, retries=retries, retry_on=retry_on, priority=priority,
        timeout=timeout, queue_timeout=queue_timeout, stall_timeout=stall_timeout, name=name, project=project,
        data=data, include=include, exclude=exclude,
    )  # fmt: skip
    client = _client()
    handle = RunHandle(client, send(client, prepare(work, params or {}, order)))
    for text in handle.warnings:
        warnings.warn(text, SubmitWarning, stacklevel=2)
    return handle


def runs(state: str | None = None, limit: int = 20) -> Runs:
    """The caller's newest runs, newest first; only those in a state (``"running"``) when one is given.

    Examples
    --------
    >>> atelier.runs("running").wait()  # doctest: +SKIP
    """
    client = _client()
    found = client.newest_runs(state=state, limit=limit)
    return Runs((RunHandle(client, record) for record in found), state=state)


def run(which: str = "last") -> RunHandle:
    """One run: by its id, a unique beginning of it, or ``"last"`` for the newest.

    Raises
    ------
    NotFound
        ``unknown_run``, ``no_runs``.
    RefusedInput
        ``ambiguous_run``: several runs begin so; the detail names them.

    Examples
    --------
    >>> atelier.run("last").wait()  # doctest: +SKIP
    """
    client = _client()
    return RunHandle(client, resolve_run(client, which))


class CatalogView(dict[str, Any]):
    """What the caller may pick from: the service's JSON, shown as two tables."""

    @property
    def images(self) -> Rows[dict[str, Any]]:
        """The images, each with name, title, framework, version, available, why."""
        return Rows(self["images"], _IMAGE_COLUMNS, empty="no images")

    @property
    def machines(self) -> Rows[dict[str, Any]]:
        """The machines, each with name, title, cpu, memory_bytes, accelerators, price_per_hour, available, why."""
        return Rows(self["machines"], _MACHINE_COLUMNS, empty="no machines")

    def __repr__(self) -> str:
        return f"{self.images!r}\n\n{self.machines!r}"

    def _repr_html_(self) -> str:
        return self.images._repr_html_() + self.machines._repr_html_()


def catalog() -> CatalogView:
    """The images, machines and roots of data that the caller may use, and his limits.

    Examples
    --------
    >>> atelier.catalog().machines  # doctest: +SKIP
    """
    return CatalogView(_client().catalog())


def models() -> Rows[Any]:
    """The newest version of each model of the caller.

    Returns
    -------
    Rows of `atelier.registry.ModelRef`
        Each with name, version, card, files and fetch().

    Examples
    --------
    >>> atelier.models()[0].fetch("digits")  # doctest: +SKIP
    """
    from atelier.registry import ModelRef

    client = _client()
    found = (ModelRef(ModelVersion.model_validate(entry, extra="ignore"), client) for entry in client.models())
    return Rows(found, _MODEL_COLUMNS, empty="no models yet")


def export(
    model: Any, example: Any, *, formats: str | Sequence[str] = ("onnx",), name: str | None = None, **options: Any
) -> Any:
    """Write a model in other formats, prove that each gives the same outputs, and keep the package under a name.

    Parameters
    ----------
    model : torch.nn.Module or keras.Model
        A trained model.
    example : array, tensor or tuple of these
        One batch of inputs.
    formats : str or sequence of str
        ``"onnx"``, and the framework's own.
    name : str, optional
        Publish it as a new version of this model: with the run when inside one, else to the registry.
    **options
        As in `atelier.exporters.export`: labels, tolerance, out, on_step.

    Returns
    -------
    ModelPackage
        The folder with its manifest and parity report.

    Examples
    --------
    >>> atelier.export(model, images[:8], formats=["onnx"], name="digits")  # doctest: +SKIP
    """
    from atelier.exporters import export as write_package

    if name:
        options["name"] = name
    package = write_package(model, example, formats=formats, **options)
    if name:
        from atelier.registry import publish

        return publish(package, name)
    return package


def _client() -> Client:
    """A client per process and place, so that a loop over runs keeps one connection."""
    names = ("ATELIER_URL", "ATELIER_TOKEN_FILE", "JUPYTERHUB_API_TOKEN", "ATELIER_HOME", "ATELIER_RUN_DIR", "HOME")
    return _client_for(os.getpid(), tuple((name, os.environ.get(name)) for name in names))


@lru_cache(maxsize=4)
def _client_for(_pid: int, place: tuple[tuple[str, str | None], ...]) -> Client:
    return Client.find({name: value for name, value in place if value is not None})


_IMAGE_COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "image": lambda entry: entry["name"],
    "title": lambda entry: entry["title"],
    "framework": lambda entry: f"{entry['framework']} {entry['version']}".strip(),
    "available": lambda entry: "yes" if entry["available"] else entry["why"] or "no",
}
_MACHINE_COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "machine": lambda entry: entry["name"],
    "CPUs": lambda entry: f"{entry['cpu']:g}",
    "memory": lambda entry: format_bytes(entry["memory_bytes"]),
    "accelerators": lambda entry: (
        ", ".join(f"{count} × {kind}" for kind, count in entry["accelerators"].items()) or "-"
    ),
    "per hour": lambda entry: f"{entry['price_per_hour']:.2f}" if entry["price_per_hour"] else "-",
    "available": lambda entry: "yes" if entry["available"] else entry["why"] or "no",
}
_MODEL_COLUMNS: dict[str, Callable[[Any], str]] = {
    "model": lambda entry: f"{entry.name}@{entry.version}",
    "aliases": lambda entry: ", ".join(entry.record.aliases),
    "size": lambda entry: format_bytes(entry.record.size_bytes),
    "run": lambda entry: entry.record.run or "-",
    "made": lambda entry: ago(entry.record.created_at),
}
