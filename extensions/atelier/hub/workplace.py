"""What a user server finds: the user's home with the examples, and a folder with kernelspec, settings and log.

The only kernelspec is ``python3``, the picked image; Jupyter's own settings of the login user are left alone.
"""

from __future__ import annotations

import html
import json
import os
import shlex
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atelier.errors import RefusedInput
from atelier.hub.site import write_private
from atelier.local.catalog import lock_of, shipped
from atelier.local.homes import home_of, safe_name
from atelier.local.overlay import Overlay, make_overlay
from atelier.local.threads import thread_limits
from atelier.settings import Image, Machine

LONGEST_NAME = 255
"""Letters that a folder's name may have."""

EXAMPLES = "atelier-examples"
OVERLAYS = ".local/share/atelier-overlay"
OF_JUPYTER = ".local/share/atelier-lab"
_NOT_EXAMPLES = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", ".atelier", "*.pyc")
_LAB_SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": False,
    },
    "@jupyterlab/apputils-extension:themes": {"adaptive-theme": True},
}

_COLOURS = {"torch": "#c93d1a", "tensorflow": "#a85a00"}
_DISABLED = {
    # One person per server: a link to it opens nothing for anybody else, and there is nobody to list.
    "@jupyter/collaboration-extension:shared-link": True,
    "@jupyter/collaboration-extension:rtcPanel": True,
}


@dataclass(frozen=True)
class Workplace:
    """The folders of one user on this machine.

    Parameters
    ----------
    home : Path
        Where their files are: the login user's own home, a folder below ``ATELIER_HOME`` for anyone else.
    folder : Path
        What belongs to the running server, below ``ATELIER_HOME/run/servers``; made anew at each start.
    """

    home: Path
    folder: Path

    @classmethod
    def of(cls, user: str, atelier_home: Path, login: str) -> Workplace:
        """The workplace of a hub user."""
        home = Path.home() if user == login else home_of(user, atelier_home)
        return cls(home, atelier_home / "run" / "servers" / safe_name(user))

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def prepare(self, image: Image, machine: Machine, atelier_home: Path) -> Overlay:
        """Make all of it; blocking, some hundredths of a second (the examples' first copy a little more)."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.copy_examples()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        overlay = make_overlay(Path(image.python or ""), self.overlay_folder(image, lock_of(image, atelier_home)))
        self._write_kernelspec(image, machine, overlay)
        self._write_settings()
        write_private(self.folder / "bashrc", _bashrc(overlay))
        return overlay

    def overlay_folder(self, image: Image, lock_sha256: str) -> Path:
        """Where this user's packages over an image are; another version of the image begins with an empty one."""
        key = f"{image.name}-{lock_sha256[:12]}" if lock_sha256 else image.name
        return self.home / OVERLAYS / key

    def copy_examples(self) -> bool:
        """Put the examples into the home once; what the user made of them, or that they deleted them, stays."""
        source, done = shipped("notebooks"), self.home / OF_JUPYTER / "examples-copied"
        target = self.home / EXAMPLES
        if source is None or done.exists():
            return False
        if not target.exists():
            new = target.with_name(f".{EXAMPLES}.{os.getpid()}")
            shutil.copytree(source, new, ignore=_NOT_EXAMPLES, copy_function=shutil.copyfile)
            new.rename(target)
        done.parent.mkdir(parents=True, exist_ok=True)
        done.touch()
        return True

    def put_away(self) -> None:
        """Keep the files of a deleted user apart, so that a recreated name starts with nothing."""
        if self.home.parent.name == "homes" and self.home.exists():
            kept = self.home.parent / ".deleted"
            kept.mkdir(mode=0o700, exist_ok=True)
            self.home.rename(kept / f"{self.home.name[:200]}-{time.time_ns()}")

    def _write_kernelspec(self, image: Image, machine: Machine, overlay: Overlay) -> None:
        """The one kernel; on a machine with accelerators it leases them from the run service when it starts."""
        leases = {"provisioner_name": "atelier-leases", "config": {"machine": machine.name}}
        spec = {
            "argv": [str(overlay.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            "display_name": image.title or image.name,
            "language": "python",
            "metadata": {"debugger": True} | ({"kernel_provisioner": leases} if machine.accelerators else {}),
        }
        folder = self.folder / "share" / "jupyter" / "kernels" / "python3"
        folder.mkdir(parents=True, exist_ok=True)
        write_private(folder / "kernel.json", json.dumps(spec, indent=2) + "\n")
        write_private(folder / "logo-svg.svg", _logo(image))

    def _write_settings(self) -> None:
        config = self.folder / "config"
        (config / "labconfig").mkdir(parents=True, exist_ok=True)
        write_private(config / "jupyter_server_config.json", json.dumps(self._server_config(), indent=2) + "\n")
        write_private(
            config / "labconfig" / "default_setting_overrides.json", json.dumps(_LAB_SETTINGS, indent=2) + "\n"
        )
        write_private(
            config / "labconfig" / "page_config.json", json.dumps({"disabledExtensions": _DISABLED}, indent=2) + "\n"
        )

    def _server_config(self) -> dict[str, Any]:
        return {
            "KernelSpecManager": {"ensure_native_kernel": False, "allowed_kernelspecs": ["python3"]},
            "LabApp": {"extension_manager": "readonly", "expose_app_in_browser": True},
            "LanguageServerManager": {"autodetect": False},  # it would run npm to look for servers that nobody can add
            "ServerDocsApp": {"yroom_manager_class": "atelier.server.rooms.Rooms"},
            "ServerApp": {
                "terminado_settings": {"shell_command": ["/bin/bash", "--rcfile", str(self.folder / "bashrc")]}
            },
        }

    def environment(self, overlay: Overlay, image: Image, machine: Machine) -> dict[str, str]:
        """What server, kernels and terminals get besides the hub's variables."""
        data, path = self.home / OF_JUPYTER, os.environ.get("PATH", os.defpath)
        return {
            "PATH": os.pathsep.join([*map(str, overlay.bins), path]),
            "ATELIER_SERVER": str(self.folder),
            "ATELIER_IMAGE": image.name,
            "ATELIER_IMAGE_PYTHON": image.python or "",
            "ATELIER_MACHINE": machine.name,
            "ATELIER_SERVER_IMAGE": image.name,
            "ATELIER_SERVER_MACHINE": machine.name,
            "ATELIER_OVERLAY": str(overlay.folder),
            "PIP_CONSTRAINT": str(overlay.constraints),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PYTHONNOUSERSITE": "1",
            "JUPYTER_PATH": str(self.folder / "share" / "jupyter"),
            "JUPYTER_CONFIG_PATH": str(self.folder / "config"),
            "JUPYTER_CONFIG_DIR": str(data / "config"),
            "JUPYTER_DATA_DIR": str(data / "data"),
            "JUPYTER_RUNTIME_DIR": str(self.folder / "runtime"),
            **thread_limits(machine.cpu),
            **_visible_devices(machine),
        }


def check_user(name: str) -> None:
    """Refuse a user whose folders could not be named.

    Raises
    ------
    RefusedInput
        ``name_too_long``.
    """
    if len(safe_name(name)) > LONGEST_NAME:
        raise RefusedInput(
            "name_too_long",
            f"The user name {name[:40]!r}… is too long for the name of a folder.",
            hint=f"Log in with at most {LONGEST_NAME} lower-case letters and digits, and fewer of other letters.",
        )


def _logo(image: Image) -> str:
    """What the launcher shows for the kernel: two letters on a tile in the framework's colour, as on its card."""
    colour = next((each for start, each in _COLOURS.items() if image.framework.lower().startswith(start)), "#2f55d4")
    letters = html.escape((image.title or image.name)[:2])
    tile = f'<rect x="4" y="4" width="56" height="56" rx="15" fill="{colour}"/>'
    style = 'fill="#fff" font-family="sans-serif" font-size="25" font-weight="700" text-anchor="middle"'
    text = f'<text x="32" y="41" {style}>{letters}</text>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64">{tile}{text}</svg>'


def _visible_devices(machine: Machine) -> dict[str, str]:
    """A machine without accelerators sees none; which GPU another one gets is a matter of leases, not of servers."""
    return {} if machine.accelerators else {"CUDA_VISIBLE_DEVICES": ""}


def _bashrc(overlay: Overlay) -> str:
    """Start-up of terminals: the user's own, and then PATH begins with the image's programs whatever that did."""
    bins = ":".join(shlex.quote(str(each)) for each in overlay.bins)
    return f'[ -r ~/.bashrc ] && . ~/.bashrc\nPATH={bins}:"$PATH"\nexport PATH\n'
