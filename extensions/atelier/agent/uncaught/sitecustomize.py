"""Is imported by the interpreter of a work before any code of it, and notes the error that ends it.

Standard library of any Python 3 only: an image has the Python that it has.
"""

from __future__ import annotations

import atexit
import importlib
import os
import sys
from types import TracebackType


def begin() -> None:
    """Leave no trace of how this came here, let another ``sitecustomize`` have its turn, and watch."""
    note = os.environ.pop("ATELIER_UNCAUGHT", None)
    here = os.path.dirname(os.path.abspath(__file__))
    paths = [path for path in os.environ.pop("PYTHONPATH", "").split(os.pathsep) if path]
    if rest := os.pathsep.join(path for path in paths if os.path.abspath(path) != here):
        os.environ["PYTHONPATH"] = rest
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != here]
    if note is not None:
        Watch(note)
    own = sys.modules.pop(__name__)
    try:
        importlib.import_module(__name__)
    except ImportError:  # there is no other one, or it can't be had: what it was for is not ours to tell
        sys.modules[__name__] = own


class Watch:
    """Notes the first interpreter's uncaught error, or that there was none; what it forks notes nothing."""

    def __init__(self, note: str) -> None:
        self._note, self._pid, self._is_told = note, os.getpid(), False
        self._before, self._own = sys.excepthook, self.hook
        sys.excepthook = self._own
        atexit.register(self.end)

    def hook(self, kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
        """Note an error, then show it as it would have been shown."""
        import traceback

        self._write("".join(traceback.format_exception(kind, value, trace)))
        self._before(kind, value, trace)

    def end(self) -> None:
        """Note that no error was uncaught, unless the code has taken the telling of errors upon itself."""
        if not self._is_told and sys.excepthook is self._own:
            self._write("")

    def _write(self, text: str) -> None:
        if os.getpid() != self._pid:
            return
        self._is_told = True
        try:
            with open(self._note + ".part", "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            os.replace(self._note + ".part", self._note)
        except OSError:  # a full disk: the log tells it too
            return


if __name__ == "sitecustomize":
    begin()
