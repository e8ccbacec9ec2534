"""One machine's platform as a place: folders, ports (chosen once and kept) and secrets (made once, 0600)."""

from __future__ import annotations

import errno
import getpass
import json
import os
import secrets
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

HOST = "127.0.0.1"
_SECRET_BYTES = {"password": 9, "cookie_secret": 32}
_TOKEN_BYTES = 32
"""43 characters of `secrets.token_urlsafe`: the hub wants at most 64 in a token, at least 32 in an admin's password."""


@dataclass(frozen=True)
class Ports:
    """Loopback ports: ``public`` is the proxy's, the address that people open."""

    public: int
    hub: int
    proxy_api: int
    service: int


@dataclass(frozen=True)
class Site:
    """Everything below one ``ATELIER_HOME`` that proxy, hub, service and supervisor must agree on."""

    home: Path
    ports: Ports

    @classmethod
    def load(cls, home: Path) -> Site:
        """The site as ``ports.json`` has it; raises OSError or ValueError where `atelier up` has not made one."""
        return cls(home, Ports(**json.loads((home / "ports.json").read_text(encoding="utf-8"))))

    def save(self) -> None:
        """Keep the ports for the next start: running user servers carry them in their URLs."""
        write_private(self.home / "ports.json", json.dumps(asdict(self.ports), indent=2) + "\n")

    @property
    def public_url(self) -> str:
        return f"http://{HOST}:{self.ports.public}"

    @property
    def hub_url(self) -> str:
        return f"http://{HOST}:{self.ports.hub}"

    @property
    def hub_api_url(self) -> str:
        return f"{self.hub_url}/hub/api"

    @property
    def proxy_api_url(self) -> str:
        return f"http://{HOST}:{self.ports.proxy_api}"

    @property
    def service_url(self) -> str:
        return f"http://{HOST}:{self.ports.service}"

    @property
    def run_folder(self) -> Path:
        return self.home / "run"

    @property
    def servers_folder(self) -> Path:
        """One folder per user server: kernelspec, log, runtime files."""
        return self.run_folder / "servers"

    @property
    def database(self) -> Path:
        return self.home / "db" / "hub.sqlite"

    def make_folders(self) -> None:
        """Make what is missing, private to this OS account; raises OSError where the disk refuses."""
        for folder in (self.home, self.run_folder, self.home / "db", self.home / "secrets", self.home / "envs"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.home / "secrets").chmod(0o700)

    def secret_file(self, name: str) -> Path:
        """The 0600 file of a secret, made at the first call: a password, the cookie secret, or a token."""
        path = self.home / "secrets" / name
        if not path.exists():
            count = _SECRET_BYTES.get(name, _TOKEN_BYTES)
            text = secrets.token_hex(count) if name == "cookie_secret" else secrets.token_urlsafe(count)
            write_private(path, text + "\n")
        return path

    def secret(self, name: str) -> str:
        """A secret's text, made at the first call."""
        return self.secret_file(name).read_text(encoding="utf-8").strip()


def write_private(path: Path, text: str) -> None:
    """Put a 0600 file in place in one step."""
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            handle.write(text)
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def login_name() -> str:
    """The OS login name as the hub writes user names: lower case; ``user`` for an account without a name."""
    try:
        return getpass.getuser().lower()
    except (OSError, KeyError):
        return "user"


def is_free(port: int) -> bool:
    """Whether a server could bind this loopback port now; PermissionError for one that this account may not bind."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as problem:
            if problem.errno != errno.EADDRINUSE:
                raise
            return False
    return True


def free_port() -> int:
    """A loopback port that nothing uses now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port
