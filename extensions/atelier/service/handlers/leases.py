"""``/leases``: accelerators for notebook kernels, from the same stock as the runs'."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Response
from fastapi import Path as InPath
from pydantic import Field

from atelier.errors import Conflict
from atelier.records import Record
from atelier.service.callers import Caller
from atelier.service.handlers.context import Parts, User
from atelier.service.store.leases import KERNEL, LIFETIME_S

router = APIRouter(prefix="/leases")
Kernel = Annotated[str, InPath(pattern=r"^[A-Za-z0-9-]{1,64}$")]


class LeaseBody(Record):
    """The machine whose accelerators a kernel needs."""

    machine: str = Field(max_length=63)


@router.get("")
def list_leases(service: Parts, user: User) -> dict[str, Any]:
    """What the caller's kernels hold, and how many of each accelerator are free."""
    held = service.store.leases.held()
    mine = [lease for lease in held if lease.owner == user.owner and lease.holder.startswith(KERNEL)]
    taken = {lease.device for lease in held}
    there = service.reconciler.backend.capacity().devices
    free = {resource: sum(1 for device in devices if device not in taken) for resource, devices in there.items()}
    items = [
        {"kernel": lease.holder.removeprefix(KERNEL), "device": lease.device, "resource": lease.resource}
        for lease in mine
    ]
    return {"items": items, "next": None, "free": free}


@router.put("/{kernel}")
def hold(kernel: Kernel, body: LeaseBody, service: Parts, user: User) -> dict[str, Any]:
    """Hold a machine's accelerators for a kernel, or renew; to be called again within ``lifetime_s``."""
    machine = service.runs.catalog.machine(body.machine, user.groups)
    stock = service.reconciler.backend.capacity().devices
    found: dict[str, list[str]] = {}
    for resource, count in machine.accelerators.items():
        found[resource] = service.store.leases.hold(
            KERNEL + kernel,
            owner=user.owner,
            resource=resource,
            devices=stock.get(resource, ()),
            count=count,
            lifetime_s=LIFETIME_S,
        )
        if not found[resource]:
            service.store.leases.release(KERNEL + kernel, user.owner)
            raise _none_free(service, user, resource)
    return {"devices": found, "lifetime_s": LIFETIME_S}


@router.delete("/{kernel}", status_code=204)
def release(kernel: Kernel, service: Parts, user: User) -> Response:
    """Give a kernel's accelerators back; nothing when it holds none."""
    service.store.leases.release(KERNEL + kernel, user.owner)
    service.reconciler.wake()
    return Response(status_code=204)


def _none_free(service: Parts, user: Caller, resource: str) -> Conflict:
    held = [lease for lease in service.store.leases.held() if lease.resource == resource]
    own = [lease.holder.removeprefix(KERNEL) for lease in held if lease.owner == user.owner]
    words = f"No {resource} is free: {len(held)} in use, {len(own)} of them by your own kernels and runs."
    hint = f"End one of yours ({', '.join(own)}), or wait." if own else "Wait until one is given back."
    return Conflict("no_device_free", words, hint=hint, detail={"own": own, "in_use": len(held)})
