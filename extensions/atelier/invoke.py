"""Calls one importable function with JSON parameters: ``python -m atelier.invoke package.module:function``.

Runs inside a run, in the image. The function's result, when it is JSON, is kept as the artifact ``result.json``. A
traceback begins at the user's own code.
"""

from __future__ import annotations

import importlib
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
        result = function(**run.params)
    except Exception as problem:
        _print_own(problem)
        return 1
    _keep(run, result)
    return 0


def _print_own(problem: Exception) -> None:
    """Print the traceback without the frames of this module and of the import machinery."""
    trace = problem.__traceback__
    while trace is not None and _is_ours(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    problem.__traceback__ = trace
    sys.excepthook(type(problem), problem, trace)  # so that the agent is told of it as of any uncaught error


def _is_ours(file: str) -> bool:
    return file == __file__ or file.startswith("<frozen importlib") or file == importlib.__file__


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
