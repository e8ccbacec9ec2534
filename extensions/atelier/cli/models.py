"""``atelier export`` and ``atelier models ls | show | alias | fetch | rm``."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atelier.cli.connection import client_of
from atelier.cli.output import Output
from atelier.client import Client
from atelier.display.text import ago
from atelier.errors import NotFound, RefusedInput
from atelier.quantities import format_bytes
from atelier.resolving import resolve_model, resolve_run


def export(options: Namespace, output: Output) -> int:
    """Fetch the package that a run exported, or publish a package folder.

    Writing another format needs the live model, hence ``atelier.export(model, example, …)`` in the run itself.
    """
    if (Path(options.source) / "model.json").is_file():
        return _publish(Path(options.source), options, output)
    with client_of(options) as client:
        record = resolve_run(client, options.source)
        version = _model_of(client, record["id"], options.name)
        return _fetch(client, version, options.out, options.formats, output)


def _model_of(client: Client, run_id: str, name: str | None) -> dict[str, Any]:
    """The newest model version that a run made, of that name where one is given."""
    names = [entry["name"] for entry in client.models()]
    made = [version for known in names for version in client.model(known) if version["run"] == run_id]
    fitting = [version for version in made if name in {None, version["name"]}]
    if not fitting:
        known = ", ".join(version["name"] for version in made)
        raise NotFound(
            "no_model",
            f"The run {run_id} has exported no model" + (f" {name!r}." if name else "."),
            hint=f"It has: {known}."
            if known
            else "End the notebook with atelier.export(model, example, name=…): exporting needs the live model.",
        )
    if len({version["name"] for version in fitting}) > 1:
        names = sorted({version["name"] for version in fitting})
        raise RefusedInput(
            "several_models", f"The run {run_id} has exported {', '.join(names)}.", hint="Pick one with --name."
        )
    return max(fitting, key=lambda version: version["version"])


def _publish(folder: Path, options: Namespace, output: Output) -> int:
    from atelier.exporters import ModelPackage
    from atelier.registry import publish

    if options.formats:
        raise RefusedInput(
            "format_of_folder",
            "A folder is published as it is; --format picks formats of a run's model.",
            hint="Leave --format out.",
        )
    package = ModelPackage.read(folder)
    with client_of(options) as client:
        published = publish(package, options.name, client=client)
        name = options.name or package.name
        version = client.model_version(name, published.version) if published.version is not None else {}
    output.document(version)
    output.say(f"{name}@{published.version} is published." if version else f"{name} is published when this run ends.")
    return 0


def ls(options: Namespace, output: Output) -> int:
    """List the newest version of each model."""
    with client_of(options) as client:
        items = client.models()
    output.document({"items": items})
    rows = [
        [
            f"{entry['name']}@{entry['version']}",
            ", ".join(entry["aliases"]),
            ", ".join(_formats(entry)),
            format_bytes(entry["size_bytes"]),
            entry["run"] or "-",
            ago(entry["created_at"]),
        ]
        for entry in items
    ]
    output.table(
        ["model", "aliases", "formats", "size", "run", "made"],
        rows,
        empty="No models yet. Make one with atelier.export(model, example, name=…) in a notebook.",
    )
    return 0


def _formats(version: Mapping[str, Any]) -> dict[str, Any]:
    formats: dict[str, Any] = version["card"]["formats"]
    return formats


def show(options: Namespace, output: Output) -> int:
    """Say everything about a model version."""
    with client_of(options) as client:
        version = resolve_model(client, options.model)
    output.document(version)
    output.say(output.paint(f"{version['name']}@{version['version']}", "bold"))
    output.facts(
        {
            "aliases": ", ".join(version["aliases"]),
            "formats": ", ".join(_formats(version)),
            "framework": version["card"]["framework"],
            "size": f"{format_bytes(version['size_bytes'])} in {len(version['files'])} files",
            "run": version["run"] or "",
            "made": ago(version["created_at"]),
        }
    )
    _show_parity(version, output)
    for file in version["files"]:
        output.say(f"{format_bytes(file['size_bytes']):>10}  {file['path']}")
    return 0


def _show_parity(version: Mapping[str, Any], output: Output) -> None:
    """Each format's differences from the framework's own outputs, by size of the input."""
    rows = []
    for name, report in _formats(version).items():
        for place, row in enumerate(report["batches"]):
            labels = "-" if row["labels_equal"] is None else f"{row['labels_equal']:.2%}"
            first = [format_bytes(report["size_bytes"]), report["verdict"]] if place == 0 else ["", ""]
            differences = [f"{float(row[key]):.1e}" for key in ("max_abs", "max_rel")]
            rows.append([name if place == 0 else "", str(row["batch"]), *differences, labels, *first])
    headings = ["format", "batch", "max abs diff", "max rel diff", "labels equal", "size", "verdict"]
    output.table(headings, rows, empty="no formats")


def alias(options: Namespace, output: Output) -> int:
    """Let an alias name a version, or take it away."""
    with client_of(options) as client:
        version = resolve_model(client, options.model)
        if options.remove:
            client.remove_alias(version["name"], options.alias)
        else:
            client.set_alias(version["name"], options.alias, version["version"])
    name, number = version["name"], version["version"]
    output.document({"name": name, "alias": options.alias, "version": None if options.remove else number})
    output.say(
        f"{name}@{options.alias} is taken away."
        if options.remove
        else f"{name}@{options.alias} is {name}@{number} now."
    )
    return 0


def fetch(options: Namespace, output: Output) -> int:
    """Copy the files of a model version."""
    with client_of(options) as client:
        return _fetch(client, resolve_model(client, options.model), options.out, [], output)


def _fetch(client: Client, version: Mapping[str, Any], out: str | None, formats: list[str], output: Output) -> int:
    """The whole package, checked against its manifest; or what belongs to some formats, and the card."""
    folder = Path(out or f"{version['name']}-{version['version']}")
    _check_formats(version, formats)
    wanted = [file for file in version["files"] if _is_wanted(file["path"], _formats(version), formats)]
    files = [
        client.model_file(version["name"], version["version"], file["path"], folder, sha256=file["sha256"])
        for file in wanted
    ]
    output.document(
        {
            "name": version["name"],
            "version": version["version"],
            "folder": str(folder),
            "files": [str(path) for path in files],
            "formats": {name: report for name, report in _formats(version).items() if not formats or name in formats},
        }
    )
    for path in files:
        output.say(f"{format_bytes(path.stat().st_size):>10}  {path}")
    _show_parity(version, output)
    return 0


def _check_formats(version: Mapping[str, Any], formats: list[str]) -> None:
    known = list(_formats(version))
    for wanted in formats:
        if wanted not in known:
            raise NotFound(
                "unknown_format",
                f"The model {version['name']}@{version['version']} has no format {wanted!r}.",
                hint=f"It has: {', '.join(known)}. Others need the live model: atelier.export(…, formats=[…]).",
                detail={"known": known},
            )


def _is_wanted(path: str, known: Mapping[str, Any], formats: list[str]) -> bool:
    """Whether a file of a package goes along: all of them, or those of the picked formats and those of none."""
    owners = [name for name, report in known.items() if path in report["files"]]
    return not formats or not owners or any(name in formats for name in owners)


def rm(options: Namespace, output: Output) -> int:
    """Delete one version of a model; which one must be said."""
    if "@" not in options.model:
        raise RefusedInput("no_version", f"{options.model!r} names no version.", hint=f"Write it as {options.model}@3.")
    with client_of(options) as client:
        version = resolve_model(client, options.model)
        client.remove_model(version["name"], version["version"])
    output.document({"removed": f"{version['name']}@{version['version']}"})
    output.say(f"{version['name']}@{version['version']} is deleted.")
    return 0
