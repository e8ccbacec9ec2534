"""The catalog of one machine: what ``atelier.yaml`` lists, else what is installed and what this computer has."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

from pydantic import ValidationError

from atelier.errors import AtelierError
from atelier.local.computer import Computer, this_computer
from atelier.quantities import format_bytes
from atelier.settings import Catalog, Image, Machine, Root, Settings, load_settings

log = logging.getLogger("atelier.catalog")

NVIDIA_GPU = "nvidia.com/gpu"
GIB = 2**30


def effective_catalog(settings: Settings, home: Path) -> Catalog:
    """The settings' catalog, with each list that they leave empty filled from this machine.

    Images are those that ``make env`` has noted in ``<home>/envs/*.json``; machines are derived from cores, memory and
    GPUs; the one root, ``samples``, is the folder of the examples.
    """
    given = settings.catalog
    return Catalog(
        images=given.images or installed_images(home),
        machines=given.machines or derived_machines(this_computer()),
        roots=given.roots or _sample_roots(),
    )


class LiveCatalog:
    """Gives the catalog of now, so that hub, service and doctor offer the same without a restart.

    ``atelier.yaml`` is read anew when it has changed; while it is wrong, what it said before holds (see the log).
    """

    def __init__(self, settings: Settings, home: Path) -> None:
        self._home = home
        self._path = home / "atelier.yaml"
        self._settings = settings
        self._stamp = _stamp(self._path)

    def __call__(self) -> Catalog:
        stamp = _stamp(self._path)
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._settings = load_settings(self._path)
            except (AtelierError, OSError) as problem:
                log.warning("The catalog stays as it was: %s", problem)
        return effective_catalog(self._settings, self._home)


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes when a file does; empty for one that is not there."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns


def installed_images(home: Path) -> tuple[Image, ...]:
    """The images noted in ``<home>/envs``, by name; a note that is torn or of something else is passed over."""
    found = (_noted_image(path) for path in sorted((home / "envs").glob("*.json")))
    return tuple(image for image in found if image is not None)


def _noted_image(path: Path) -> Image | None:
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        if not note.get("framework"):
            return None
        return Image(**{name: note.get(name, "") for name in ("name", "title", "framework", "version", "python")})
    except (OSError, ValueError, AttributeError, ValidationError):
        return None


def lock_of(image: Image, home: Path) -> str:
    """The sha256 of the lock that an image was installed from; empty for an image that ``make env`` did not make."""
    try:
        note = json.loads((home / "envs" / f"{image.name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    same = isinstance(note, dict) and note.get("python") == image.python
    return str(note.get("lock_sha256", "")) if same else ""


def derived_machines(computer: Computer) -> tuple[Machine, ...]:
    """Sizes for a computer: a small one, all of it, and one GPU (offered always, so that its absence is explained)."""
    most_bytes = max(GIB // 2, computer.memory_bytes * 4 // 5 // GIB * GIB)
    small = Machine(name="cpu-small", cpu=min(2, computer.cpu_count), memory=min(4 * GIB, most_bytes))
    machines = [small]
    if computer.cpu_count > small.cpu or most_bytes > small.memory:
        machines.append(Machine(name="cpu-large", cpu=computer.cpu_count, memory=most_bytes))
    count = max(1, len(computer.gpus))
    cores, share_bytes = max(1, computer.cpu_count // count), max(GIB // 2, most_bytes // count // GIB * GIB)
    machines.append(Machine(name="gpu-1", cpu=cores, memory=share_bytes, accelerators={NVIDIA_GPU: 1}))
    if count > 1:
        all_of_them = {NVIDIA_GPU: count}
        machines.append(
            Machine(name=f"gpu-{count}", cpu=computer.cpu_count, memory=most_bytes, accelerators=all_of_them)
        )
    return tuple(machine.model_copy(update={"title": title_of(machine)}) for machine in machines)


def title_of(machine: Machine) -> str:
    """A machine in words, from its numbers: ``2 CPU, 4 GiB``."""
    parts = [f"{machine.cpu:g} CPU", format_bytes(machine.memory)]
    parts += [f"{count} {accelerator_name(kind)}" for kind, count in machine.accelerators.items()]
    return ", ".join(parts)


def accelerator_name(kind: str) -> str:
    """A resource name as people say it: ``nvidia.com/gpu`` → ``NVIDIA GPU``."""
    vendor, _, resource = kind.partition("/")
    maker = {"nvidia": "NVIDIA", "amd": "AMD", "google": "Google", "intel": "Intel"}.get(vendor.split(".")[0], vendor)
    return f"{maker} {resource.upper() if resource in {'gpu', 'tpu'} else resource}".strip()


def availability(entry: Image | Machine, computer: Computer | None = None) -> str | None:
    """Why an image or a machine can't be given on this computer, in one sentence; None when it can."""
    if isinstance(entry, Image):
        return _why_no_image(entry)
    computer = this_computer() if computer is None else computer
    if entry.cpu > computer.cpu_count:
        return f"It needs {entry.cpu:g} cores, and this computer has {computer.cpu_count}."
    if entry.memory > computer.memory_bytes:
        needed, there = format_bytes(entry.memory), format_bytes(computer.memory_bytes)
        return f"It needs {needed} of memory, and this computer has {there}."
    for kind, count in entry.accelerators.items():
        found = len(computer.gpus) if kind == NVIDIA_GPU else 0
        if found == 0:
            return f"No {accelerator_name(kind)} was found on this computer."
        if count > found:
            return f"It needs {count} × {accelerator_name(kind)}, and this computer has {found}."
    return None


def _why_no_image(image: Image) -> str | None:
    if image.python is None:
        return "It has no 'python', so it can't be used without a cluster."
    if not os.access(image.python, os.X_OK):
        return f"Its interpreter {image.python} is not there; 'make env IMAGES={image.name}' builds it."
    return None


def shipped(name: str) -> Path | None:
    """What ships beside the package: in its checkout, in the checkout around ``.venv``, else below ``share``."""
    prefix = Path(sys.prefix)
    places = (Path(__file__).resolve().parents[3] / name, prefix.parent / name, prefix / "share" / "atelier" / name)
    return next((place for place in places if place.exists()), None)


def _sample_roots() -> tuple[Root, ...]:
    examples = shipped("notebooks")
    return (Root(name="samples", title="Samples", url=examples.as_uri()),) if examples else ()
