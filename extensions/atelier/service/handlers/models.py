"""``/models``: versions of exported models, their files and aliases."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from atelier.records import ModelFile, ModelVersion, Page, Record, Whole
from atelier.service.boundary import FromUser
from atelier.service.description import sends
from atelier.service.handlers.context import Parts, User
from atelier.service.handlers.downloads import safe_headers, send_blob

router = APIRouter(prefix="/models")


class PublishBody(FromUser):
    """A model package whose files are uploaded."""

    name: str
    card: dict[str, Any]
    files: list[ModelFile]
    run: str | None = None


class AliasBody(Record):
    """Where an alias points."""

    version: Whole


@router.get("", response_model=Page)
def list_models(service: Parts, user: User, run: str | None = None) -> Page:
    """The newest version of each of the caller's models; with ``run`` every version that this run has made."""
    if run is None:
        return Page(items=service.store.models.names(user.owner))
    return Page(items=service.store.models.of_run(user.owner, service.store.runs.get(run, user.owner).id))


@router.post("", status_code=201, response_model=ModelVersion)
def publish(body: PublishBody, service: Parts, user: User) -> ModelVersion:
    """A new version from uploaded files."""
    if body.run is not None:
        service.store.runs.get(body.run, user.owner)
    return service.models.publish(
        owner=user.owner, project=user.owner, name=body.name, run_id=body.run, card=body.card, files=body.files
    )


@router.get("/{name}", response_model=Page)
def show(name: str, service: Parts, user: User) -> Page:
    """All versions of a model, newest first."""
    return Page(items=service.store.models.versions(user.owner, name))


@router.get("/{name}/versions/{version}", response_model=ModelVersion)
def show_version(name: str, version: str, service: Parts, user: User) -> ModelVersion:
    """One version, by number, alias or ``latest``."""
    return service.models.version(user.owner, name, version)


@router.delete("/{name}/versions/{version}", status_code=204)
def remove(name: str, version: int, service: Parts, user: User) -> Response:
    """Forget a version and its files."""
    service.models.remove(user.owner, name, version)
    return Response(status_code=204)


@router.get("/{name}/versions/{version}/files/{path:path}", **sends("application/octet-stream"))
def read_file(name: str, version: str, path: str, request: Request, *, service: Parts, user: User) -> StreamingResponse:
    """One file of a version."""
    model = service.models.version(user.owner, name, version)
    return send_blob(request, service.blobs, service.models.file_key(model, path), path.rsplit("/", 1)[-1])


@router.get("/{name}/versions/{version}/archive", **sends("application/zip", ranges=False))
def read_archive(name: str, version: str, service: Parts, user: User) -> StreamingResponse:
    """The whole package as a zip."""
    model = service.models.version(user.owner, name, version)
    headers = safe_headers(f"{model.name}-{model.version}.zip")
    return StreamingResponse(service.models.archive(model), media_type="application/zip", headers=headers)


@router.put("/{name}/aliases/{alias}", response_model=ModelVersion)
def set_alias(name: str, alias: str, body: AliasBody, service: Parts, user: User) -> ModelVersion:
    """Point an alias to a version."""
    service.models.alias(user.owner, name, alias, body.version)
    return service.models.version(user.owner, name, body.version)


@router.delete("/{name}/aliases/{alias}", status_code=204)
def remove_alias(name: str, alias: str, service: Parts, user: User) -> Response:
    """Remove an alias; nothing happens when there is none."""
    service.store.models.versions(user.owner, name)
    service.models.alias(user.owner, name, alias, None)
    return Response(status_code=204)
