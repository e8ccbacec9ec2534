"""Starts the run service: ``python -m atelier.service --home PATH [--port N | --embedded]``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from atelier.errors import AtelierError
from atelier.service.serving import Plan, serve
from atelier.service.troubles import home_trouble


def main(argv: list[str] | None = None) -> int:
    """Serve until a signal, or, embedded, until nobody has needed the service for a while."""
    parser = argparse.ArgumentParser(prog="python -m atelier.service", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="folder of all state")
    parser.add_argument("--port", type=int, help="loopback port to serve on besides the Unix socket")
    parser.add_argument("--hub", help="URL of the hub's API; its token is in the file $ATELIER_HUB_TOKEN_FILE")
    parser.add_argument("--embedded", action="store_true", help="end after idle minutes with no unfinished run")
    options = parser.parse_args(argv)
    logging.basicConfig(
        level=os.environ.get("ATELIER_LOG_LEVEL", "INFO"), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        asyncio.run(
            serve(Plan(home=options.home.absolute(), port=options.port, embedded=options.embedded, hub=options.hub))
        )
    except AtelierError as problem:
        return _refused(problem)
    except OSError as problem:
        told = home_trouble(problem, options.home)
        if told is None:
            raise
        return _refused(told)
    return 0


def _refused(problem: AtelierError) -> int:
    print(f"error[{problem.code}]: {problem}", file=sys.stderr)
    return problem.exit_code


if __name__ == "__main__":
    sys.exit(main())
