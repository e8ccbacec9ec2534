"""What ``atelier doctor`` looks at: each check reads, changes nothing, and says what to do when something is wrong."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from atelier.client import Client
from atelier.client.address import live_address, noted_service
from atelier.client.embedded import lock_holder
from atelier.errors import AtelierError
from atelier.local.catalog import effective_catalog, lock_of
from atelier.local.cgroups import may_hold
from atelier.local.computer import this_computer
from atelier.quantities import format_bytes
from atelier.settings import Image, Settings, load_settings

Status = Literal["ok", "warn", "fail"]
LEAST_DISK_BYTES = 200 * 10**6
GOOD_DISK_BYTES = 5 * 10**9
GOOD_MEMORY_BYTES = 2**30
IMAGE_TIMEOUT_S = 30.0
DEFAULT_PORT = 8000
VERSIONS = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
def find(name):
    try: return version(name)
    except PackageNotFoundError: return None
print(json.dumps([find(name) for name in sys.argv[1:]]))
"""


@dataclass(frozen=True)
class Check:
    """One line of the doctor: what was looked at, how it is, what to do (empty when nothing); values for programs."""

    name: str
    status: Status
    text: str
    todo: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Offered:
    """The images in a service's catalog; ``is_local``: it serves the home that the doctor looks at."""

    images: Sequence[Mapping[str, Any]]
    is_local: bool


def check_settings(path: Path) -> tuple[Check, Settings]:
    """The settings file, and the settings: the defaults where it is missing or wrong."""
    try:
        settings = load_settings(path)
    except AtelierError as problem:
        return Check("settings", "fail", problem.message, problem.hint), Settings()
    except OSError as problem:
        return Check(
            "settings", "fail", f"{path} can't be read: {problem.strerror}.", "Change its permissions."
        ), Settings()
    text = f"{path} is right" if path.exists() else f"no {path.name} in {path.parent}; the defaults hold"
    return Check("settings", "ok", text), settings


def check_accounts(settings: Settings) -> Check:
    """What separates users from each other."""
    if settings.accounts == "one":
        return Check(
            "accounts",
            "ok",
            "one: everybody who logs in here works as this OS account, and could read what it can read",
        )
    if os.geteuid() != 0:
        todo = "Start as root, or set 'accounts: one'."
        return Check("accounts", "fail", "system: each user's own OS account, which needs root", todo)
    return Check("accounts", "ok", "system: each user works as his own OS account")


def check_python() -> Check:
    """The interpreter that this command runs in."""
    version = ".".join(map(str, sys.version_info[:3]))
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Check("python", "fail", f"{version} at {sys.executable}", "Use Python 3.11, 3.12 or 3.13.")
    missing = [
        name for name in ("fastapi", "uvicorn", "sqlalchemy", "jupyterhub") if importlib.util.find_spec(name) is None
    ]
    if missing:
        text = f"{version} at {sys.executable}, without the platform ({', '.join(missing)})"
        return Check("python", "warn", text, "Run 'make env' once; its .venv/bin/atelier has all of it.")
    return Check("python", "ok", f"{version} at {sys.executable}")


def check_home(home: Path) -> Check:
    """Whether the folder of all state is ours and may be written."""
    if not home.exists():
        parent = next(folder for folder in home.parents if folder.exists())
        if not os.access(parent, os.W_OK):
            return Check(
                "home",
                "fail",
                f"{home} can't be made: {parent} is not writable",
                "Set ATELIER_HOME to a folder of yours.",
            )
        return Check("home", "ok", f"{home} is not there yet; the first start makes it")
    status = home.stat()
    if status.st_uid != os.getuid():
        return Check("home", "fail", f"{home} belongs to another account", "Set ATELIER_HOME to a folder of yours.")
    if not os.access(home, os.W_OK | os.X_OK):
        return Check("home", "fail", f"{home} is not writable", f"Run: chmod u+rwx {home}")
    return Check("home", "ok", str(home))


def check_file_system(home: Path) -> Check:
    """Whether the database may lie there: on a network disk it would be damaged."""
    folder = _existing(home)
    try:
        from atelier.service.store.database import file_system_of, refuse_network_disk
    except ImportError:
        return Check(
            "file system", "warn", f"{folder} was not looked at", "Run the doctor of the platform's environment."
        )
    try:
        refuse_network_disk(folder)
    except AtelierError as problem:
        return Check("file system", "fail", problem.message, problem.hint)
    return Check("file system", "ok", f"{file_system_of(folder) or 'unknown'}, a local disk")


def check_disk(home: Path) -> Check:
    """Free space where state is kept."""
    free_bytes = shutil.disk_usage(_existing(home)).free
    text = f"{format_bytes(free_bytes)} free at {_existing(home)}"
    if free_bytes < LEAST_DISK_BYTES:
        return Check("disk", "fail", text, "Free some space, or set ATELIER_HOME to another disk.")
    if free_bytes < GOOD_DISK_BYTES:
        return Check("disk", "warn", text, "An image takes some GB, and runs keep their files; free some space soon.")
    return Check("disk", "ok", text)


def _existing(folder: Path) -> Path:
    return next(each for each in (folder, *folder.parents) if each.exists())


def check_memory() -> Check:
    """Memory that is free now, and what machines can be made of."""
    computer = this_computer()
    available_bytes = _available_bytes()
    text = f"{format_bytes(available_bytes)} of {format_bytes(computer.memory_bytes)} free, {computer.cpu_count} cores"
    if available_bytes < GOOD_MEMORY_BYTES:
        return Check("memory", "warn", text, "End what you don't need; a kernel with a framework takes about 1 GiB.")
    return Check("memory", "ok", text)


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def check_limits(settings: Settings) -> Check:
    """By what runs are held to the memory and the cores of their machines."""
    if not settings.limits.control_groups:
        return Check("limits", "ok", "memory of runs is watched by their agents, cores are free: limits.control_groups")
    if may_hold():
        return Check("limits", "ok", "runs are held to memory and cores by control groups")
    return Check(
        "limits", "ok", "memory of runs is watched by their agents, cores are free: no control group may be had"
    )


def check_gpu() -> Check:
    """NVIDIA GPUs, by their management library, else by nvidia-smi."""
    has_driver = Path("/proc/driver/nvidia/version").exists()
    names = _gpu_names()
    if names:
        return Check("gpu", "ok", f"{len(names)} × NVIDIA: {', '.join(names)}")
    if has_driver:
        return Check(
            "gpu", "warn", "there is an NVIDIA driver, and no GPU answers", "Run nvidia-smi, and read what it says."
        )
    return Check("gpu", "ok", "no NVIDIA GPU; runs use the CPU")


def _gpu_names() -> list[str]:
    if importlib.util.find_spec("pynvml") is None:
        return [f"{gpu.name} {format_bytes(gpu.memory_bytes)}" for gpu in this_computer().gpus]
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [
            f"{pynvml.nvmlDeviceGetName(each)} {format_bytes(pynvml.nvmlDeviceGetMemoryInfo(each).total)}"
            for each in handles
        ]
    finally:
        pynvml.nvmlShutdown()


def check_service(home: Path, client: Client, *, named: bool) -> tuple[Check, Offered | None]:
    """Whether the run service answers, and what it offers when it does; it is not started for that.

    Parameters
    ----------
    home : Path
        Where a service without a name would be.
    client : Client
        Asks the service.
    named : bool
        Whether ``ATELIER_URL`` names the service, so that the home does not matter.
    """
    if named or live_address(home):
        try:
            catalog = client.catalog()
        except AtelierError as problem:
            return Check("service", "fail", problem.message, problem.hint), None
        text = f"answers {catalog['user']['name']} at {client.where}"
        return Check("service", "ok", text), Offered(catalog["images"], is_local=not named)
    return _silent_service(home), None


def _silent_service(home: Path) -> Check:
    """Why nothing answers where a service of this home would be."""
    holder = lock_holder(home / "run" / "service.lock")
    if holder:
        todo = f"Wait a moment; if it stays so, read {home / 'run' / 'service.log'} and end process {holder}."
        return Check("service", "fail", f"process {holder} holds {home}, and does not answer", todo)
    if noted_service(home):
        return Check(
            "service",
            "warn",
            "the last one died without a goodbye; its note is stale",
            "Nothing: the next start replaces it.",
        )
    return Check("service", "ok", "none is running; the next command or 'make up' starts one")


def check_images(settings: Settings, home: Path, offered: Offered | None = None) -> Iterator[Check]:
    """Each image's environment: there, whole enough to say its framework's version, and of the lock that was noted.

    A service that answers has the last word: what it does not offer can't be submitted to.
    """
    known = {image.name: image for image in effective_catalog(settings, home).images}
    if offered is not None:
        yield from _check_offered(offered, known, home)
        return
    if not known:
        yield _no_image()
    for image in known.values():
        yield _check_image(image, home)


def _check_offered(offered: Offered, known: Mapping[str, Image], home: Path) -> Iterator[Check]:
    """What the service offers, and what is here and it does not offer."""
    for entry in offered.images:
        name = entry["name"]
        if not entry["available"]:
            yield Check(f"image {name}", "fail", entry["why"], f"Run 'make env IMAGES={name}'.")
        elif offered.is_local and name in known:
            yield _check_image(known[name], home)
        else:
            text = f"{entry['framework']} {entry['version']}".strip()
            yield Check(f"image {name}", "ok", f"{text}, says the service".lstrip(", "))
    names = {entry["name"] for entry in offered.images}
    for name in known if offered.is_local else ():
        if name not in names:
            todo = "Look at its 'groups' in atelier.yaml, and whether the settings above are right."
            yield Check(f"image {name}", "warn", "it is here, and the service does not offer it to you", todo)
    if not offered.images and not known:
        yield _no_image()


def _no_image() -> Check:
    words = "no image is built; runs use the caller's own Python"
    return Check("images", "warn", words, "Run 'make env IMAGES=pytorch'.")


def _check_image(image: Image, home: Path) -> Check:
    name = f"image {image.name}"
    rebuild = f"Run 'make env IMAGES={image.name}'."
    if image.python is None:
        return Check(
            name,
            "warn",
            "it has no 'python', so it can't be used on one machine",
            "Add its interpreter to atelier.yaml.",
        )
    if not os.access(image.python, os.X_OK):
        return Check(name, "fail", f"its interpreter {image.python} is not there", rebuild)
    wanted = [image.framework, "ipykernel", "jupyterhub-atelier"] if image.framework else ["ipykernel"]
    try:
        told = subprocess.run(
            [image.python, "-I", "-c", VERSIONS, *wanted],
            capture_output=True,
            text=True,
            timeout=IMAGE_TIMEOUT_S,
            check=True,
        )
        versions = dict(zip(wanted, json.loads(told.stdout), strict=False))
    except subprocess.CalledProcessError as problem:
        words = problem.stderr.strip().splitlines()
        return Check(name, "fail", f"it is not whole: {words[-1] if words else problem}", rebuild)
    except (OSError, subprocess.TimeoutExpired, ValueError) as problem:
        return Check(name, "fail", f"its interpreter does not work: {problem}", rebuild)
    return _check_versions(image, versions, home)


def _check_versions(image: Image, versions: Mapping[str, str | None], home: Path) -> Check:
    """What an image's environment says that it has, beside what was noted."""
    name, rebuild = f"image {image.name}", f"Run 'make env IMAGES={image.name}'."
    missing = [wants for wants, version in versions.items() if version is None]
    if missing:
        todo = f"Install it there, or mend 'framework', which names a package, in atelier.yaml. {rebuild}"
        return Check(name, "fail", f"it has no package {' and no '.join(missing)}", todo)
    version = versions.get(image.framework, "")
    if image.version and image.framework and version != image.version:
        return Check(name, "fail", f"it has {image.framework} {version}, and {image.version} was noted", rebuild)
    locked = f", lock {lock_of(image, home)[:12]}" if lock_of(image, home) else ""
    return Check(name, "ok", f"{image.framework or image.python} {version}{locked}".strip())


def check_ports(home: Path) -> Iterator[Check]:
    """The platform's ports: its own while it is up, free else."""
    from atelier.hub.site import is_free
    from atelier.local.processes import port_holder

    supervisor = lock_holder(home / "run" / "up.lock")
    for use, port in _ports(home).items():
        free = is_free(port)
        if supervisor:
            up = f"{port}, held by the platform (process {supervisor})"
            down = Check(
                f"port {use}",
                "fail",
                f"{port} is not answered by the platform that is up",
                "Stop it, and run 'make up' again.",
            )
            yield down if free else Check(f"port {use}", "ok", up)
        elif free:
            yield Check(f"port {use}", "ok", f"{port} is free")
        else:
            todo = (
                f"End that, or run 'make up PORT={port + 1}'."
                if use == "public"
                else "End that, or start: another is chosen."
            )
            yield Check(f"port {use}", "warn", f"{port} is taken by {port_holder(port)}", todo)


def _ports(home: Path) -> dict[str, int]:
    try:
        ports = json.loads((home / "ports.json").read_text(encoding="utf-8"))
        return {str(use): int(port) for use, port in ports.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {"public": DEFAULT_PORT}
