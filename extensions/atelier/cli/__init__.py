"""The command line ``atelier``: parse, do, and turn every error into a line, a document and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence

from atelier.cli.output import Output
from atelier.cli.parser import build_parser, parse
from atelier.errors import AtelierError, InternalError, RefusedInput
from atelier.local.disk import is_full

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Do one command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments behind ``atelier``; those of the process when not given.

    Returns
    -------
    int
        0 done, 1 the run failed or something went wrong, 2 refused input, 3 not found, 4 not allowed, 5 service not
        reachable, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    output = Output(as_json="--json" in arguments)
    try:
        return _do(arguments, output)
    except AtelierError as error:
        output.error(error)
        return error.exit_code
    except KeyboardInterrupt:
        output.note("Interrupted.")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as problem:
        output.error(_disk_error(problem))
        return 1


def _do(arguments: list[str], output: Output) -> int:
    options = parse(arguments)
    if options.version:
        return _version(output)
    if options.command is None:
        if output.as_json:
            raise RefusedInput("usage", "No command was given.", hint="See 'atelier --help'.")
        build_parser().print_help()
        return 0
    code = _command(options)(options, output)
    sys.stdout.flush()
    return code


def _command(options: Namespace) -> Callable[[Namespace, Output], int]:
    module, function = options.function.split(":")
    found: Callable[[Namespace, Output], int] = getattr(importlib.import_module(f"atelier.cli.{module}"), function)
    return found


def _version(output: Output) -> int:
    from atelier import __version__

    output.document({"version": __version__})
    output.say(__version__)
    return 0


def _disk_error(problem: OSError) -> AtelierError:
    what = f"{problem.strerror or problem}" + (f": {problem.filename}" if problem.filename else "")
    if is_full(problem):
        return InternalError("disk_full", f"{what}.", hint="Free some space, then try again.")
    return InternalError("system_error", f"{what}.", hint="Look at the path and its permissions.")
