"""Hands a verified package to the registry: through the run's record inside a run, else by uploading it."""

from __future__ import annotations

from atelier.client import Client
from atelier.exporters.card import check_name
from atelier.exporters.model_package import ModelPackage
from atelier.exporters.package import check_package, package_files, sha256
from atelier.recorder import current_run


def publish(package: ModelPackage, name: str | None = None, *, client: Client | None = None) -> ModelPackage:
    """Make a package a new version of a model; its files are checked against the manifest first.

    Inside a run the package is handed to the run's agent, which publishes it with the run as its origin: the version's
    number is known only then; ``run`` is set and ``version`` stays None. Elsewhere it is uploaded now; files that
    the service has already are not sent again.

    Parameters
    ----------
    package : ModelPackage
    name : str, optional
        The model's name; by default the package's own.
    client : Client, optional
        The service to publish to; by default the one that this place belongs to.

    Returns
    -------
    ModelPackage
        The same package, with its ``version``, or inside a run with that ``run``.

    Raises
    ------
    RefusedInput
        ``package_incomplete``, ``package_changed``: something happened to the folder since the export.
    Unreachable
        No service answers, and none can be started. The package stays where it is.
    OSError
        Inside a run: the disk is full or broken, and the package is not handed over.
    """
    check_package(package.folder)
    name = check_name(name or package.name)
    job = current_run()
    if job.in_run:
        job.add_model(name, package.folder)
        return package.handed_to(job.id)
    client = client or Client.find()
    files = [
        {"path": path, "size_bytes": file.stat().st_size, "sha256": sha256(file)}
        for path, file in package_files(package.folder)
    ]
    for _, file in package_files(package.folder):
        client.put_upload(file)
    made = client.publish_model(name, card=package.card.model_dump(mode="json"), files=files)
    return package.published_as(name, int(made["version"]))
