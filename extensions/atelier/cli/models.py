"""``atelier export`` and ``atelier models ls | show | alias | fetch | rm``."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atelier.cli.connection import client_of
from atelier.cli.output import Output
from atelier.client import Client
from atelier.display import ago
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
        raise RefusedInput("several_models", f"The run {run_id} has exported {', '.join(names)}.", hint="Pick one with --name.")
    return max(fitting, key=lambda version: version["version"])


def _publish(folder: Path, options: Namespace, output: Output) -> int:
    card = _card(folder)
    name = options.name or card.get("name")
    if not name:
        raise RefusedInput("no_name", f"The model in {folder} has no name.", hint="Give --name NAME.")
    if options.formats:
        raise RefusedInput(
            "format_of_folder",
            "A folder is published as it is; --format picks formats of a run's model.",
            hint="Leave --format out.",
        )
    with client_of(options) as client:
        paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        files = [
            {"path": path.relative_to(folder).as_posix(), "size_bytes": path.stat().st_size, "sha256": client.put_upload(path)}
            for path in paths
        ]
        version = client.publish_model(name, card, files)
    output.document(version)
    output.say(f"{version['name']}@{version['version']}  {format_bytes(version['size_bytes'])} in {len(version['files'])} files")
    return 0


def _card(folder: Path) -> dict[str, Any]:
    try:
        card = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    except ValueError as problem:
        raise RefusedInput("bad_model", f"{folder}/model.json is not JSON: {problem}.", hint="Export the model again.") from problem
    if not isinstance(card, dict):
        raise RefusedInput("bad_model", f"{folder}/model.json holds no model.", hint="Export the model again.")
    return card


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


def _formats(version: Mapping[str, Any]) -> list[str]:
    formats = version["card"].get("formats") or {}
    return [str(entry.get("name", entry.get("format"))) if isinstance(entry, Mapping) else str(entry) for entry in formats]


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
            "size": f"{format_bytes(version['size_bytes'])} in {len(version['files'])} files",
            "run": version["run"] or "",
            "made": ago(version["created_at"]),
        }
    )
    _show_parity(version["card"].get("parity") or [], output)
    for file in version["files"]:
        output.say(f"{format_bytes(file['size_bytes']):>10}  {file['path']}")
    return 0


def _show_parity(parity: Any, output: Output) -> None:
    rows = parity if isinstance(parity, list) else []
    plain = [{name: value for name, value in row.items() if not isinstance(value, list | dict)} for row in rows]
    if plain:
        headings = list(plain[0])
        output.table(headings, [[_cell(row.get(name)) for name in headings] for row in plain], empty="")


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "-" if value is None else str(value)


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
    output.say(f"{name}@{options.alias} is taken away." if options.remove else f"{name}@{options.alias} is {name}@{number} now.")
    return 0


def fetch(options: Namespace, output: Output) -> int:
    """Copy the files of a model version."""
    with client_of(options) as client:
        return _fetch(client, resolve_model(client, options.model), options.out, [], output)


def _fetch(client: Client, version: Mapping[str, Any], out: str | None, formats: list[str], output: Output) -> int:
    folder = Path(out or f"{version['name']}-{version['version']}")
    wanted = [file for file in version["files"] if _is_wanted(file["path"], formats)]
    _check_formats(version, formats)
    files = [
        client.model_file(version["name"], version["version"], file["path"], folder, sha256=file["sha256"]) for file in wanted
    ]
    output.document(
        {
            "name": version["name"],
            "version": version["version"],
            "folder": str(folder),
            "files": [str(path) for path in files],
            "parity": version["card"].get("parity"),
        }
    )
    for path in files:
        output.say(f"{format_bytes(path.stat().st_size):>10}  {path}")
    _show_parity(version["card"].get("parity") or [], output)
    return 0


def _check_formats(version: Mapping[str, Any], formats: list[str]) -> None:
    known = _formats(version)
    for wanted in formats:
        if wanted not in known:
            raise NotFound(
                "unknown_format",
                f"The model {version['name']}@{version['version']} has no format {wanted!r}.",
                hint=f"It has: {', '.join(known) or 'none'}. Others need the live model: atelier.export(…, formats=[…]).",
                detail={"known": known},
            )


def _is_wanted(path: str, formats: list[str]) -> bool:
    """Whether a file of a package goes along: all of them, or those common to all formats and those of the picked."""
    return not formats or "/" not in path or path.split("/")[0] in formats


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
