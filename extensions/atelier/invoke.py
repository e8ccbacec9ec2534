"""Calls one importable function with JSON parameters: ``python -m atelier.invoke package.module:function``.

Runs inside a run, in the image. A coroutine is run to its end; a generator, of which no line would run, is an error.
The function's result, when it is JSON, is kept as the artifact ``result.json``. A traceback begins at the user's own
code.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from atelier.recorder import current_run


def main(target: str) -> int:
    """Call ``package.module:function`` with the run's parameters; 1 when it raises."""
    module_name, _, function_name = target.partition(":")
    run = current_run()
    try:
        function = getattr(importlib.import_module(module_name), function_name)
        result = _done(function(**run.params), function_name)
    except Exception as problem:
        _print_own(problem)
        return 1
    _keep(run, result)
    return 0


def _done(result: Any, name: str) -> Any:
    """What a function has come to, once it has run: calling an async one, or a generator's, runs none of its lines."""
    if inspect.iscoroutine(result):
        return asyncio.run(result)
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise TypeError(
            f"{name}() gave a generator, and none of its lines has run; name a function that goes through it"
        )
    return result


def _print_own(problem: Exception) -> None:
    """Print the traceback without the frames of this module and of the machinery that imports and awaits."""
    trace = problem.__traceback__
    while trace is not None and _is_ours(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    trace = trace or problem.__traceback__  # none of the user's code ran: without a frame it would be no traceback
    problem.__traceback__ = trace
    sys.excepthook(type(problem), problem, trace)  # so that the agent is told of it as of any uncaught error


def _is_ours(file: str) -> bool:
    machinery = ("<frozen importlib", str(importlib.__file__), os.path.dirname(asyncio.__file__) + os.sep)
    return file == __file__ or file.startswith(machinery)


def _keep(run: Any, result: Any) -> None:
    try:
        text = json.dumps(result, allow_nan=False, indent=1)
    except (TypeError, ValueError) as problem:
        print(f"The result was not kept, it is not JSON: {problem}", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        path.write_text(text)
        run.save(path, name="result.json")


if __name__ == "__main__":
    sys.path[0] = os.getcwd()
    sys.exit(main(sys.argv[1]))
