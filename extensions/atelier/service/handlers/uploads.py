"""``/bundles`` and ``/uploads``: bytes by their sha256, seen only by the owner who sent them."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi import Path as InPath

from atelier.crash_points import crash_point
from atelier.errors import NotFound, RefusedInput
from atelier.quantities import format_bytes
from atelier.service.description import TAKES_BYTES
from atelier.service.handlers.context import Parts, User
from atelier.service.housekeeping import is_uploaded
from atelier.service.scratch import scratch_file
from atelier.storage.paths import upload_key

router = APIRouter()
Sha256 = Annotated[str, InPath(pattern="^[0-9a-f]{64}$")]


@router.head("/bundles/{sha256}", status_code=200, response_class=Response)
@router.head("/uploads/{sha256}", status_code=200, response_class=Response)
def look(sha256: Sha256, service: Parts, user: User) -> Response:
    """Whether the caller has uploaded these bytes."""
    if not is_uploaded(service.blobs, upload_key(user.owner, sha256)):
        raise NotFound("unknown_upload", f"{sha256[:12]}… was not uploaded.", hint="PUT it.")
    return Response()


@router.put("/bundles/{sha256}", status_code=201, openapi_extra=TAKES_BYTES)
async def put_bundle(sha256: Sha256, request: Request, service: Parts, user: User) -> dict[str, int]:
    """Upload a bundle (tar.zst)."""
    limit = service.settings.limits.bundle_size
    return await _receive(request, service, owner=user.owner, sha256=sha256, limit=limit, code="bundle_too_large")


@router.put("/uploads/{sha256}", status_code=201, openapi_extra=TAKES_BYTES)
async def put_upload(sha256: Sha256, request: Request, service: Parts, user: User) -> dict[str, int]:
    """Upload a file of a model package."""
    limit = service.settings.limits.artifact_size
    return await _receive(request, service, owner=user.owner, sha256=sha256, limit=limit, code="too_large")


async def _receive(
    request: Request, service: Parts, *, owner: str, sha256: str, limit: int, code: str
) -> dict[str, int]:
    digest, size = hashlib.sha256(), 0
    with scratch_file(service.scratch, prefix="upload-") as stream:
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise RefusedInput(code, f"The upload is larger than {format_bytes(limit)}.", hint="Send less.")
            digest.update(part)
            await asyncio.to_thread(stream.write, part)
        stream.flush()
        if digest.hexdigest() != sha256:
            words = f"The bytes sent have the sha256 {digest.hexdigest()}, not {sha256}."
            raise RefusedInput("wrong_digest", words, hint="Send them again.")
        crash_point("service.upload.before")
        await asyncio.to_thread(service.blobs.put_file, upload_key(owner, sha256), Path(stream.name))
        crash_point("service.upload.after")
    return {"size_bytes": size}
