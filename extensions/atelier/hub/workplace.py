"""What a user server finds when it starts: the user's home with the examples, and a folder with kernelspec, settings and log.

The only kernelspec is ``python3``, the picked image; Jupyter's own settings of the login user are left alone.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atelier.hub.overlay import Overlay, make_overlay
from atelier.hub.site import safe_name, write_private
from atelier.local_catalog import lock_of, shipped
from atelier.settings import Image, Machine

EXAMPLES = "atelier-examples"
OF_JUPYTER = ".local/share/atelier-lab"
_NOT_EXAMPLES = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", ".atelier", "*.pyc")
_LAB_SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": False},
    "@jupyterlab/apputils-extension:themes": {"adaptive-theme": True},
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
        home = Path.home() if user == login else atelier_home / "homes" / safe_name(user)
        return cls(home, atelier_home / "run" / "servers" / safe_name(user))

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def prepare(self, image: Image, atelier_home: Path) -> Overlay:
        """Make all of it; blocking, some hundredths of a second (the examples' first copy a little more)."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.copy_examples()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        overlay = make_overlay(Path(image.python or ""), image.name, lock_of(image, atelier_home), self.home)
        self._write_kernelspec(image, overlay)
        self._write_settings()
        write_private(self.folder / "bashrc", _bashrc(overlay))
        return overlay

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
            self.home.rename(kept / f"{self.home.name}-{time.time_ns()}")

    def _write_kernelspec(self, image: Image, overlay: Overlay) -> None:
        spec = {
            "argv": [str(overlay.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            "display_name": image.title or image.name,
            "language": "python",
            "metadata": {"debugger": True},
        }
        folder = self.folder / "share" / "jupyter" / "kernels" / "python3"
        folder.mkdir(parents=True, exist_ok=True)
        write_private(folder / "kernel.json", json.dumps(spec, indent=2) + "\n")

    def _write_settings(self) -> None:
        config = self.folder / "config"
        (config / "labconfig").mkdir(parents=True, exist_ok=True)
        write_private(config / "jupyter_server_config.json", json.dumps(self._server_config(), indent=2) + "\n")
        write_private(config / "labconfig" / "default_setting_overrides.json", json.dumps(_LAB_SETTINGS, indent=2) + "\n")

    def _server_config(self) -> dict[str, Any]:
        return {
            "KernelSpecManager": {"ensure_native_kernel": False, "allowed_kernelspecs": ["python3"]},
            "LabApp": {"extension_manager": "readonly", "expose_app_in_browser": True},
            "ServerApp": {"terminado_settings": {"shell_command": ["/bin/bash", "--rcfile", str(self.folder / "bashrc")]}},
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
            "ATELIER_OVERLAY": str(overlay.folder),
            "PIP_CONSTRAINT": str(overlay.constraints),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PYTHONNOUSERSITE": "1",
            "JUPYTER_PATH": str(self.folder / "share" / "jupyter"),
            "JUPYTER_CONFIG_PATH": str(self.folder / "config"),
            "JUPYTER_CONFIG_DIR": str(data / "config"),
            "JUPYTER_DATA_DIR": str(data / "data"),
            "JUPYTER_RUNTIME_DIR": str(self.folder / "runtime"),
            **_thread_limits(machine),
            **_visible_devices(machine),
        }


def _thread_limits(machine: Machine) -> dict[str, str]:
    """Numerical libraries take as many threads as the machine has cores; nothing else holds a kernel to its machine here."""
    cores = str(max(1, int(machine.cpu)))
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
    return dict.fromkeys(names, cores)


def _visible_devices(machine: Machine) -> dict[str, str]:
    """A machine without accelerators sees none; which GPU another one gets is a matter of leases, not of an idle server."""
    return {} if machine.accelerators else {"CUDA_VISIBLE_DEVICES": ""}


def _bashrc(overlay: Overlay) -> str:
    """Start-up of terminals: the user's own, and then PATH begins with the image's programs whatever that did."""
    bins = ":".join(shlex.quote(str(each)) for each in overlay.bins)
    return f'[ -r ~/.bashrc ] && . ~/.bashrc\nPATH={bins}:"$PATH"\nexport PATH\n'
