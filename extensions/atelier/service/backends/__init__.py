"""Where attempts run: one small contract, one implementation a file. Only configuration names a concrete one."""

from __future__ import annotations

from atelier.service.backends.base import Backend, Key, Launch, Sign
from atelier.service.backends.local import LocalBackend

__all__ = ["Backend", "Key", "Launch", "LocalBackend", "Sign"]
