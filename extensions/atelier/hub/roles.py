"""Who may do what at the hub: the three scopes of a user server's token, and the roles of our two services."""

from __future__ import annotations

from typing import Any

SERVICE = "atelier"
SUPERVISOR = "atelier-up"

SERVER_TOKEN_SCOPES = (
    "users:activity!user",  # without it a live server looks idle
    "access:servers!server",
    f"access:services!service={SERVICE}",
)

USER_SCOPES = (f"access:services!service={SERVICE}",)
"""Added to the role ``user``: a server's token holds what is in both lists."""

ROLES: tuple[dict[str, Any], ...] = (
    # The run service learns of a user: groups, and when the name was created (a recreated one inherits nothing).
    {"name": "atelier-service", "services": [SERVICE], "scopes": ["read:users"]},
    # The supervisor has the routes put back after a restart of the proxy.
    {"name": "atelier-supervisor", "services": [SUPERVISOR], "scopes": ["proxy"]},
)
