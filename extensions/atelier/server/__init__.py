"""The Jupyter server extension: Atelier on the notebook's own origin."""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    from atelier.server.app import AtelierServer

    return [{"module": "atelier.server", "app": AtelierServer}]


_load_jupyter_server_extension: Any = None
"""Jupyter takes the class above; the name is here because its checks look for it."""
