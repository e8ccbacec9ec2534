"""What a work runs in: environment variables, parameters, packages as a lock."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atelier.agent.place import Place, sha256_of
from atelier.local.threads import thread_limits

_DIST = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._]*)-(?P<version>[^-]+)\.dist-info")


def packages_of(python: Path) -> str:
    """The packages of an interpreter's environment, ``name==version`` a line, sorted; nothing is run for it."""
    root = python.parent.parent
    found = {
        f"{match['name'].lower().replace('_', '-')}=={match['version']}"
        for folder in (*root.glob("lib/python3*/site-packages"), *root.glob("lib/python3/dist-packages"))
        for entry in os.scandir(folder)
        if (match := _DIST.fullmatch(entry.name))
    }
    return "".join(f"{line}\n" for line in sorted(found))


def environment_record(image: str, python: Path, lock: str, requirements: Path) -> dict[str, Any]:
    """What the run's record says of its environment; the lock itself goes beside it."""
    asked = sha256_of(requirements) if requirements.exists() else None
    digest = hashlib.sha256(lock.encode()).hexdigest()
    return {"image": image, "python": str(python), "lock_sha256": digest, "requirements_sha256": asked}


def work_environment(
    environ: Mapping[str, str], place: Place, orders: Mapping[str, Any], bins: tuple[Path, ...], resume: Path | None
) -> dict[str, str]:
    """The environment variables of the work: the agent's own, the image's programs first on PATH, and the run's."""
    ours = {
        "PATH": os.pathsep.join([*map(str, bins), environ.get("PATH", os.defpath)]),
        "ATELIER_RUN_DIR": str(place.run),
        "ATELIER_RUN_ID": str(orders["run"]),
        "ATELIER_ATTEMPT": str(orders["attempt"]),
        "ATELIER_PARAMS": str(place.run / "params.json"),
        "ATELIER_IMAGE": str(orders["image"]),
        "PYTHONUNBUFFERED": "1",
        **thread_limits(float(orders["cpu"])),
        "CUDA_VISIBLE_DEVICES": ",".join(place.orders["devices"].get("nvidia.com/gpu", ())),
    }
    if resume is not None:
        ours["ATELIER_RESUME_FROM"] = str(resume)
    kept = {name: value for name, value in environ.items() if name != "PYTHONPATH"}
    if source := source_folder():
        ours["PYTHONPATH"] = source
    if not _lists_devices(place):
        del ours["CUDA_VISIBLE_DEVICES"]
    return kept | ours


def _lists_devices(place: Place) -> bool:
    """Whether the run's view of GPUs is ours to set: always, but where the machine has none to hide."""
    return bool(place.orders["devices"]) or Path("/dev/nvidiactl").exists()


def source_folder() -> str | None:
    """The folder that holds this package in a checkout, where nothing else lies; None when it is installed."""
    folder = Path(__file__).resolve().parents[2]
    return None if folder.name in {"site-packages", "dist-packages"} else str(folder)


def write_params(place: Place, params: Mapping[str, Any]) -> None:
    """Leave the parameters where the recorder reads them."""
    (place.run / "params.json").write_text(json.dumps(params))
