"""The one error tree of Atelier, with stable codes and no knowledge of HTTP.

AtelierError
├── RefusedInput     what the caller sent can't be taken (exit code 2)
├── NotFound         it does not exist, or is not the caller's (exit code 3)
├── NotAllowed       the caller may not do this (exit code 4)
├── Unreachable      the run service does not answer (exit code 5)
├── Conflict         it is in a state that does not allow this (exit code 1)
├── Unavailable      a library or tool that this needs is missing (exit code 1)
├── RunFailed        a run whose result was wanted did not succeed (exit code 1)
├── StillRunning     the time to wait for a run is over, and it goes on (exit code 1)
└── InternalError    a defect or a broken disk on our side (exit code 1)

Every error of this tree is meant for a user: its message says what happened and with which values, its
hint says what to do next. Exceptions of other types never leave a service as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class AtelierError(Exception):
    """Base of all errors that a user may see.

    Parameters
    ----------
    code : str
        Stable identifier, lower-case with underscores, e.g. ``"unknown_parameter"``.
    message : str
        What happened, with the values.
    hint : str
        What to do next; may be empty.
    detail : mapping
        JSON values for programs, e.g. ``{"known": ["epochs"], "nearest": "epochs"}``.
    """

    exit_code = 1

    def __init__(self, code: str, message: str, *, hint: str = "", detail: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.detail: dict[str, Any] = dict(detail or {})

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of the frames of this library."""
        return [f"{type(self).__name__}[{self.code}]: {self.message}", *([self.hint] if self.hint else [])]

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.code, self.message, self.hint, self.detail))


def _rebuild(kind: type[AtelierError], code: str, message: str, hint: str, detail: dict[str, Any]) -> AtelierError:
    return kind(code, message, hint=hint, detail=detail)


class RefusedInput(AtelierError):
    """What the caller sent can't be taken; nothing was changed."""

    exit_code = 2


class NotFound(AtelierError):
    """The thing does not exist, or belongs to somebody else (the two can't be told apart from outside)."""

    exit_code = 3


class NotAllowed(AtelierError):
    """The caller is known, and may not do this."""

    exit_code = 4


class Unreachable(AtelierError):
    """The run service does not answer."""

    exit_code = 5


class Conflict(AtelierError):
    """The thing is in a state that does not allow this."""


class Unavailable(AtelierError):
    """A library, a tool or a device that this needs is not here."""


class InternalError(AtelierError):
    """A defect or a broken disk on our side; the text says nothing of the inside."""


class RunFailed(AtelierError):
    """A run whose result was wanted did not succeed; shows the user's own traceback."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of the frames of this library."""
        return str(self).splitlines()


class StillRunning(AtelierError, TimeoutError):
    """The time to wait is over, and the run goes on."""
