"""``atelier up``."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from atelier.cli.output import Output
from atelier.home import atelier_home


def up(options: Namespace, _output: Output) -> int:
    """Start the platform in the foreground; see `atelier.up.platform`."""
    from atelier.up.platform import main

    return main(options.port, Path(options.home).expanduser().absolute() if options.home else atelier_home())
