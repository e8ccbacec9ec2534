"""Gets optional libraries at the moment of use, and keeps their chatter out of the user's notebook."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

from atelier.errors import Unavailable


def library(name: str, *, extra: str, purpose: str = "") -> Any:
    """The module of that name.

    Parameters
    ----------
    name : str
    extra : str
        What ``pip install`` is to be given when it is missing.
    purpose : str
        What needs it, as ``"A preview of images"``.

    Raises
    ------
    Unavailable
        ``library_missing``: it can't be imported; the hint names what to install.
    """
    try:
        return importlib.import_module(name)
    except ImportError as problem:
        raise Unavailable(
            "library_missing",
            f"{purpose or 'This'} needs the library {name.partition('.')[0]!r}, which can't be imported: {problem}.",
            hint=f"Install it with: pip install {extra}",
            detail={"library": name, "extra": extra},
        ) from problem


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Within the block these loggers, all warnings and what is printed are silent.

    Converters narrate, and some print whole graphs before they raise; what goes wrong is raised, or found by verifying.
    """
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in loggers]
    before = {name: logging.getLogger(name).level for name in {*names, *loggers}}
    for name in before:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
