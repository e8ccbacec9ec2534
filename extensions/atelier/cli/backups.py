"""``atelier backup | restore``."""

from __future__ import annotations

import importlib
from argparse import Namespace
from pathlib import Path
from typing import Any

from atelier.cli.output import Output
from atelier.errors import Unavailable
from atelier.home import atelier_home
from atelier.quantities import format_bytes


def backup(options: Namespace, output: Output) -> int:
    """Make or verify a backup; 1 when something that should be in it is not."""
    folder = Path(options.folder).expanduser().absolute()
    if options.verify:
        return _verify(folder, output)
    made = _backups().back_up(atelier_home(), folder)
    output.document(
        {
            "folder": str(folder),
            "files": made.files,
            "size_bytes": made.size_bytes,
            "new_bytes": made.new_bytes,
            "missing": made.missing,
        }
    )
    size, new = format_bytes(made.size_bytes), format_bytes(made.new_bytes)
    output.say(f"{folder}  {made.files} files, {size}, of which {new} are new")
    output.say("It holds secrets and all that users' runs have kept: let nobody else read it.")
    _tell(made.missing, "The platform itself lacks these files, which its database tells of:", output)
    return 1 if made.missing else 0


def _verify(folder: Path, output: Output) -> int:
    manifest, faults = _backups().verify(folder)
    output.document({"folder": str(folder), "made_at": manifest.made_at, "files": len(manifest.files),
                     "faults": faults, "missing": manifest.missing})  # fmt: skip
    if not faults:
        output.say(f"{folder}  of {manifest.made_at[:19]} UTC: all {len(manifest.files)} files are as they were")
    _tell(faults, f"{folder} is damaged:", output)
    _tell(manifest.missing, "The platform lacked these files when it was made:", output)
    return 1 if faults else 0


def restore(options: Namespace, output: Output) -> int:
    """Make a home of a backup."""
    folder, home = Path(options.folder).expanduser().absolute(), atelier_home()
    manifest, aside = _backups().restore(folder, home, replace=options.replace, end_runs=options.end_runs)
    output.document({"home": str(home), "made_at": manifest.made_at, "files": len(manifest.files),
                     "aside": str(aside) if aside else None})  # fmt: skip
    output.say(f"{home} is as it was at {manifest.made_at[:19]} UTC. Runs that lived then will be told of as lost.")
    if aside:
        output.say(f"What was there before lies in {aside}.")
    output.say(f"Next: 'make env ATELIER_HOME={home}' builds the images that are not there yet, until when their runs")
    output.say(f"wait; 'make up ATELIER_HOME={home}' starts the platform.")
    return 0


def _tell(lines: list[str], heading: str, output: Output) -> None:
    if lines:
        output.say(heading)
        for line in lines:
            output.say(f"  {line}")


def _backups() -> Any:
    """What makes backups, which an environment without the platform lacks."""
    try:
        return importlib.import_module("atelier.service.backups")
    except ImportError as problem:
        raise Unavailable(
            "no_platform",
            f"This Python lacks what a backup needs: {problem}.",
            hint="Run the 'atelier' of the platform's environment, .venv/bin/atelier.",
        ) from problem
