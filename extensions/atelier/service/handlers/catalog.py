"""``/catalog``: what the caller may pick from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter

from atelier.local.catalog import availability
from atelier.service.handlers.context import Parts, User
from atelier.settings import Image, Machine, may_use

router = APIRouter()


@router.get("/catalog")
def catalog(service: Parts, user: User) -> dict[str, Any]:
    """Images, machines and roots of the caller, the defaults, and the limits."""
    known = service.runs.catalog
    images = [image for image in known.images if may_use(image, user.groups)]
    machines = [machine for machine in known.machines if may_use(machine, user.groups)]
    default = {"image": _first_available(images), "machine": _first_available(machines)}
    return {
        "user": {"name": user.name, "owner": user.owner, "groups": sorted(user.groups), "is_local": user.is_local},
        "images": [_entry(image, ("name", "title", "framework", "version")) for image in images],
        "machines": [_machine(machine) for machine in machines],
        "roots": [
            {"name": root.name, "title": root.title, "writable": root.writable}
            for root in known.roots
            if may_use(root, user.groups)
        ],
        "default": default,
        "limits": service.settings.limits.model_dump(mode="json"),
    }


def _first_available(entries: Sequence[Image | Machine]) -> str | None:
    return next((entry.name for entry in entries if availability(entry) is None), None)


def _machine(machine: Machine) -> dict[str, Any]:
    shown = _entry(machine, ("name", "title", "cpu", "accelerators", "price_per_hour", "spot"))
    return shown | {"memory_bytes": machine.memory}


def _entry(entry: Image | Machine, fields: tuple[str, ...]) -> dict[str, Any]:
    why = availability(entry)
    return {field: getattr(entry, field) for field in fields} | {"available": why is None, "why": why}
