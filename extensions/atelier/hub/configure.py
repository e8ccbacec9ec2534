"""What JupyterHub is told: proxy and run service are external to it, servers outlive it, one password opens it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from atelier.hub.roles import ROLES, SERVER_TOKEN_SCOPES, SERVICE, SUPERVISOR, USER_SCOPES
from atelier.hub.site import HOST, Site, login_name
from atelier.hub.spawners import LocalSpawner
from atelier.local.inheritance import INHERITED
from atelier.settings import Settings

SERVICE_WAIT_S = 1
"""How long a starting hub waits for the run service before it goes on without; it is not needed for logging in."""

TEMPLATES = Path(__file__).parent / "templates"


def configure(c: Any, settings: Settings, home: Path) -> None:
    """Fill the configuration of a hub on one machine.

    Parameters
    ----------
    c : traitlets.config.Config
        What ``get_config()`` gives in ``jupyterhub_config.py``.
    settings : Settings
        ``atelier.yaml``.
    home : Path
        ``ATELIER_HOME``; `atelier up` has made its ports and secrets.
    """
    site = Site.load(home)
    _configure_hub(c, site)
    _configure_proxy(c, site)
    _configure_login(c, site)
    _configure_services(c, site)
    _configure_servers(c, site)
    _configure_pages(c, settings)


def _configure_hub(c: Any, site: Site) -> None:
    event.listen(Engine, "connect", _write_ahead)
    c.JupyterHub.bind_url = site.public_url
    c.JupyterHub.hub_bind_url = site.hub_url
    c.JupyterHub.hub_connect_url = site.hub_url
    c.JupyterHub.db_url = f"sqlite:///{site.database}"
    c.JupyterHub.upgrade_db = True
    c.JupyterHub.cookie_secret_file = str(site.secret_file("cookie_secret"))
    c.JupyterHub.cleanup_servers = False
    c.JupyterHub.cleanup_proxy = False
    c.JupyterHub.log_level = "INFO"


def _write_ahead(connection: Any, _: Any) -> None:
    """SQLite on a local disk: 56 spawns/s against 32, and readers never wait for a writer."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def _configure_proxy(c: Any, site: Site) -> None:
    c.ConfigurableHTTPProxy.should_start = False
    c.ConfigurableHTTPProxy.api_url = site.proxy_api_url
    c.ConfigurableHTTPProxy.auth_token = site.secret("proxy_token")


def _configure_login(c: Any, site: Site) -> None:
    """One generated password for every name; the hub's administration has a name and a longer password of its own."""
    c.JupyterHub.authenticator_class = "shared-password"
    c.SharedPasswordAuthenticator.user_password = site.secret("password")
    c.SharedPasswordAuthenticator.admin_password = site.secret("admin_password")
    c.Authenticator.admin_users = {administrator()}
    c.Authenticator.allow_all = True


def administrator() -> str:
    """The hub name that opens the administration; never the login name, which has the common password."""
    return "admin" if login_name() != "admin" else "hub-admin"


def _configure_services(c: Any, site: Site) -> None:
    c.JupyterHub.services = [
        {
            "name": SERVICE,
            "url": site.service_url,
            "api_token": site.secret("service_token"),
            "display": False,
            "timeout": SERVICE_WAIT_S,
        },
        {"name": SUPERVISOR, "api_token": site.secret("up_token"), "display": False},
    ]
    c.JupyterHub.load_roles = [dict(role) for role in ROLES]
    c.JupyterHub.extra_user_scopes = set(USER_SCOPES)


def _configure_servers(c: Any, site: Site) -> None:
    c.JupyterHub.spawner_class = LocalSpawner
    c.LocalSpawner.atelier_home = str(site.home)
    c.Spawner.ip = HOST
    c.Spawner.cmd = [sys.executable, "-P", "-m", "jupyterhub.singleuser"]
    c.Spawner.env_keep = list(INHERITED)
    c.Spawner.server_token_scopes = list(SERVER_TOKEN_SCOPES)
    c.Spawner.default_url = "/lab"
    c.Spawner.start_timeout = 60
    c.Spawner.http_timeout = 30


def _configure_pages(c: Any, settings: Settings) -> None:
    c.JupyterHub.template_paths = [str(TEMPLATES)]
    c.JupyterHub.template_vars = {"one_account": settings.accounts == "one", "atelier_login_name": login_name()}
