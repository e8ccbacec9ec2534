"""``atelier doctor``: looks at settings and machine, one line each, and says what to do."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from atelier.cli import checks
from atelier.cli.checks import Check, Offered
from atelier.cli.connection import client_of
from atelier.cli.keeping_checks import check_keeping
from atelier.cli.output import Output
from atelier.errors import AtelierError
from atelier.home import atelier_home
from atelier.settings import Settings

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(options: Namespace, output: Output) -> int:
    """Check everything; 1 when something fails."""
    found = []
    for check in examine(options):
        found.append(check)
        output.say(f"{output.paint(check.status.ljust(4), _COLOURS[check.status])}  {check.name:18}  {check.text}")
        if check.todo:
            output.say(f"{'':26}→ {check.todo}")
    output.document(
        {"checks": [asdict(check) for check in found], "ok": all(check.status != "fail" for check in found)}
    )
    return 1 if any(check.status == "fail" for check in found) else 0


def examine(options: Namespace) -> Iterator[Check]:
    """All checks, in the order in which one would look.

    Where the environment names a service, as in a notebook server, its home and ports are its administrator's matter.
    """
    home, named = atelier_home(), bool(getattr(options, "url", None) or os.environ.get("ATELIER_URL"))
    settings = Settings()
    if options.settings or not named:
        first, settings = checks.check_settings(Path(options.settings) if options.settings else home / "atelier.yaml")
        yield first
        yield checks.check_accounts(settings)
    yield checks.check_python()
    if not named:
        yield checks.check_home(home)
        yield checks.check_file_system(home)
    yield checks.check_disk(Path.home() if named else home)
    yield checks.check_memory()
    if not named:
        yield checks.check_limits(settings)
    yield checks.check_gpu()
    service, offered = _service(options, home, named=named)
    yield service
    yield from checks.check_images(settings, home, None if options.settings else offered)
    if not named:
        yield from check_keeping(home, settings)
        yield from checks.check_ports(home)


def _service(options: Namespace, home: Path, *, named: bool) -> tuple[Check, Offered | None]:
    try:
        with client_of(options) as client:
            return checks.check_service(home, client, named=named)
    except AtelierError as problem:
        return Check("service", "fail", problem.message, problem.hint), None
