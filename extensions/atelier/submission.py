"""From the name of a work to a run: finds and checks it here, captures its code, uploads that, asks for the run."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atelier.bundle.capture import imported_modules
from atelier.bundle.snapshot import BundlePlan, plan_bundle, write_bundle
from atelier.client import Client
from atelier.errors import RefusedInput
from atelier.local.overlay import only_in_overlay
from atelier.quantities import parse_duration
from atelier.records import Source, Work, WorkKind
from atelier.works.finding import FoundWork, Parameter, check_work, find_work, inspect_work

TORN_WAIT_S = 0.3
"""Jupyter writes notebooks in place: what is no notebook may be half saved, and is read again after this time."""

_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")

CURRENT = "current"
"""The image that is the caller's own interpreter."""

BUNDLE_LIMIT_BYTES = 100 * 2**20
"""The cap of a bundle where the service names none; the default of the setting ``limits.bundle_size``."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a user asks for beside the work and its parameters; None is the service's default."""

    image: str | None = None
    machine: str | None = None
    nodes: int = 1
    retries: int = 0
    retry_on: str | Sequence[str] = ()
    priority: int = 0
    timeout: float | str | None = None
    queue_timeout: float | str | None = None
    stall_timeout: float | str | None = None
    name: str | None = None
    project: str | None = None
    data: Sequence[str] = ()
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()


@dataclass(frozen=True)
class Submission:
    """A work that may be submitted: found, its parameters checked, nothing sent.

    ``parameters`` is None where they can't be known.
    """

    found: FoundWork
    parameters: tuple[Parameter, ...] | None
    params: Mapping[str, Any]
    order: Order = field(default_factory=Order)


def prepare(work: str | Path, params: Mapping[str, Any], order: Order) -> Submission:
    """Find a work and check its parameters; touches no service.

    Raises
    ------
    RefusedInput
        As `works.find_work`, `works.inspect_work` and `works.check_params`.
    """
    try:
        return _checked(work, params, order)
    except RefusedInput as problem:
        if problem.code != "bad_notebook":
            raise
    time.sleep(TORN_WAIT_S)
    return _checked(work, params, order)


def _checked(work: str | Path, params: Mapping[str, Any], order: Order) -> Submission:
    found = find_work(_name_of(work), Path.cwd())
    parameters = check_work(_reader(found), _inner_work(found), params)
    return Submission(found, parameters, params, order)


def parameters_of(work: str | Path) -> tuple[Parameter, ...] | None:
    """The parameters of a work on this machine; None where they can't be known."""
    found = find_work(_name_of(work), Path.cwd())
    return inspect_work(_reader(found), _inner_work(found))


def _name_of(work: object) -> str:
    """The name of a work; what a user may try instead, a function itself say, is refused with the way to name it."""
    if isinstance(work, str | os.PathLike):
        return os.fspath(work)
    module, name = getattr(work, "__module__", None), getattr(work, "__qualname__", None)
    if not callable(work) or not module or not name or "<" in name:
        hint = "Give 'notebook.ipynb', 'script.py', 'package.module' or 'package.module:function'."
    elif module == "__main__":
        hint = f"A run imports its code: put {name} into a file, say work.py, and submit 'work:{name}'."
    else:
        hint = f"A run imports its code by name: submit '{module}:{name}'."
    raise RefusedInput("unknown_work", f"A work is given by its name, not as {type(work).__name__}.", hint=hint)


def _reader(found: FoundWork) -> Callable[[str], bytes]:
    return lambda name: (found.folder / name).read_bytes()


def _inner_work(found: FoundWork) -> Work:
    return Work(kind=found.kind, target=found.target)


def capture(submission: Submission, limit_bytes: int = BUNDLE_LIMIT_BYTES) -> BundlePlan:
    """What of the code would be sent.

    Raises
    ------
    RefusedInput
        ``bundle_too_large``, with the biggest files.
    """
    order = submission.order
    return plan_bundle(
        submission.found, include=tuple(order.include), exclude=tuple(order.exclude), limit_bytes=limit_bytes
    )


def send(client: Client, submission: Submission, *, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Capture and upload the code and make the run; the run's record. A lost answer makes no second run."""
    catalog = client.catalog()
    plan = capture(submission, catalog.get("limits", {}).get("bundle_size") or BUNDLE_LIMIT_BYTES)
    given = os.environ if environ is None else environ
    spec = spec_of(submission, plan, _place(client, catalog, submission, given))
    with tempfile.TemporaryDirectory(prefix="atelier-") as folder:
        path = Path(folder) / "bundle.tar.zst"
        spec["bundle"] = write_bundle(plan, path)
        client.put_bundle(path, spec["bundle"])
    source = source_of(plan, overlay_warnings(submission.found, given))
    return client.submit(spec, source=source, idempotency_key=uuid.uuid4().hex)


def overlay_warnings(found: FoundWork, environ: Mapping[str, str]) -> list[str]:
    """What to say of imports that only the user's own packages satisfy: a run has the image's and the requirements'."""
    overlay = environ.get("ATELIER_OVERLAY")
    if not overlay:
        return []
    imported = imported_modules(_reader(found), _inner_work(found))
    listed = _required(found.folder / "requirements.txt")
    return [
        f"{module!r} is only among your own packages, which the run does not have. "
        f"Add this line to requirements.txt beside the work: {line}"
        for module, line in sorted(only_in_overlay(Path(overlay), imported).items())
        if _canonical(line.split("==", maxsplit=1)[0]) not in listed
    ]


def _required(requirements: Path) -> set[str]:
    """The distributions that a requirements file names, canonical; none where there is no file."""
    lines = requirements.read_text(errors="replace").splitlines() if requirements.is_file() else ()
    return {_canonical(found[1]) for found in map(_REQUIREMENT.match, lines) if found}


def _canonical(name: str) -> str:
    """The name of a distribution as the packaging standard compares them."""
    return re.sub(r"[-_.]+", "-", name).lower()


def spec_of(submission: Submission, plan: BundlePlan, place: Mapping[str, str | None]) -> dict[str, Any]:
    """The spec of a submission but its bundle; the service alone judges types and ranges, so that one place says it."""
    order = submission.order
    return {
        "work": plan.work.model_dump(mode="json"),
        "params": dict(submission.params),
        "nodes": order.nodes,
        "retries": order.retries,
        "timeout_s": _seconds(order.timeout),
        "queue_timeout_s": _seconds(order.queue_timeout),
        "stall_timeout_s": _seconds(order.stall_timeout),
        "name": order.name,
        "project": order.project,
        "data": list(order.data),
        **place,
        **_later_options(order),
    }


def _later_options(order: Order) -> dict[str, Any]:
    """Options that an older service doesn't know, where they are given."""
    reasons: Any = order.retry_on
    if isinstance(reasons, str):
        reasons = [reason.strip() for reason in reasons.split(",") if reason.strip()]
    options = {"retry_on": list(reasons) if isinstance(reasons, tuple | set) else reasons, "priority": order.priority}
    return {name: value for name, value in options.items() if value}


def _seconds(duration: float | str | None) -> float | None:
    return None if duration is None else parse_duration(duration)


def source_of(plan: BundlePlan, warnings: Sequence[str] = ()) -> Source:
    """Where the code came from, for the record."""
    return Source(
        git_revision=plan.git_revision,
        git_dirty=plan.git_dirty,
        root=str(plan.root),
        files=len(plan.files),
        size_bytes=plan.size_bytes,
        warnings=[*plan.warnings, *warnings],
    )


def named_place(found: FoundWork) -> dict[str, str]:
    """Image and machine that a notebook names in its metadata, ``atelier: {image, machine}``."""
    if found.kind is not WorkKind.NOTEBOOK:
        return {}
    named = json.loads(found.path.read_bytes()).get("metadata", {}).get("atelier", {})
    asked = {name: named.get(name) for name in ("image", "machine")} if isinstance(named, dict) else {}
    return {name: value for name, value in asked.items() if isinstance(value, str) and value}


def option_of(name: str, environ: Mapping[str, str], named: Mapping[str, Any]) -> Any:
    """An option as environment and notebook give it; None where neither does.

    A variable that a user exports (``ATELIER_IMAGE``) wins over what the notebook names; what a user server exports for
    all that it starts (``ATELIER_SERVER_IMAGE`` says the same) gives way to it.
    """
    exported = environ.get(f"ATELIER_{name.upper()}") or None
    of_server = exported is not None and exported == environ.get(f"ATELIER_SERVER_{name.upper()}")
    return named[name] if name in named and (of_server or exported is None) else exported


def _place(
    client: Client, catalog: Mapping[str, Any], submission: Submission, environ: Mapping[str, str]
) -> dict[str, str | None]:
    """Image, interpreter and machine.

    What the caller names, else what `option_of` gives, else the catalog's default; a plain terminal beside a catalog
    without images lends its own interpreter.
    """
    named = named_place(submission.found) if catalog.get("images") else {}
    image = submission.order.image or option_of("image", environ, named)
    machine = submission.order.machine or option_of("machine", environ, named)
    if image is None and not client.behind_hub and not (catalog.get("default") or {}).get("image"):
        image = CURRENT
    python = sys.executable if image == CURRENT and not client.behind_hub else None
    return {"image": image, "python": python, "machine": machine}
