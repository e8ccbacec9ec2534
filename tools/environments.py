"""`make env`: the platform's environment in ``.venv``, and one read-only environment per image in ``ATELIER_HOME``.

Nothing that is there and current is touched, so a second call only looks.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tools import javascript, machine
from tools.machine import Refusal, in_words
from tools.plan import (
    PYTHON_TAG,
    ROOT,
    Environment,
    Plan,
    cache_folder,
    digest_of,
    make_plan,
    read_json,
    remember_images,
    write_json,
)


def main() -> int:
    """Build what is missing; 1 and one line on stderr when that can't be done."""
    started = time.monotonic()
    try:
        machine.check()
        with machine.only_one((plan := make_plan()).home / "envs/.lock"):
            changed = build(plan)
    except Refusal as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return 1
    if changed:
        print(f"Environments are ready after {time.monotonic() - started:.0f} s.", flush=True)
    return 0


def build(plan: Plan) -> bool:
    """Bring every environment of the plan up to date; whether anything had to be done."""
    _announce(plan)
    remember_images(plan)
    os.environ["UV_CACHE_DIR"] = str(cache_folder(os.environ))
    missing = plan.missing
    if plan.platform in missing:
        _make_platform(plan.platform)
    uv = plan.platform.folder / "bin/uv"
    for image in plan.images:
        if image in missing:
            _make_image(image, uv)
    javascript.install_proxy(plan.platform.folder)
    javascript.build_lab(plan.platform.folder)
    wheel_sha256 = our_digest()
    stale = [each for each in (plan.platform, *plan.images) if each.state().get("wheel") != wheel_sha256]
    if stale:
        wheel = _build_wheel(plan.platform)
        for each in stale:
            _install_wheel(each, uv, wheel, wheel_sha256)
    _write_indexes(plan)
    if missing:
        _name_older(plan)
    return bool(missing or stale)


def _announce(plan: Plan) -> None:
    """Say what comes, and refuse before the first byte when the disk can't hold it."""
    missing = [(each.name, each.sizes, ROOT if each is plan.platform else plan.home) for each in plan.missing]
    if not (javascript.lab_is_built(plan.platform.folder) or javascript.has_modules(ROOT / "lab")):
        missing.append(("JupyterLab extension", javascript.LAB_SIZES, ROOT))
    if not missing:
        return
    needed: dict[Path, int] = {ROOT: 0, plan.home: 0}
    for name, sizes, folder in missing:
        size = f"up to {in_words(sizes.download_bytes)} to download" if sizes.download_bytes else "size not known"
        print(f"{name}: {size}, {in_words(sizes.installed_bytes)} on disk", flush=True)
        needed[folder] += sizes.installed_bytes
    if len([each for each in plan.missing if each in plan.images]) > 1:
        print("to take one framework only: IMAGES=pytorch or IMAGES=tensorflow; this home then keeps to it", flush=True)
    total = in_words(sum(sizes.download_bytes for _, sizes, _ in missing))
    print(f"in all up to {total}; what {cache_folder(os.environ)} has already is not fetched again", flush=True)
    machine.check_space(needed)


def _make_platform(platform: Environment) -> None:
    """Install the locked platform in ``.venv``, in place when uv is there, for a running platform may use it."""
    uv = platform.folder / "bin/uv"
    if platform.state().get("python") != PYTHON_TAG or not uv.exists():
        _remove(platform.folder)
        bootstrap = ROOT / "images/platform/bootstrap.txt"
        machine.run("make .venv", sys.executable, "-m", "venv", platform.folder)
        argv = "-m pip install --quiet --disable-pip-version-check --require-hashes --only-binary=:all: -r".split()
        machine.run("install uv", platform.python, *argv, bootstrap)
    _sync(platform, uv)
    write_json(platform.marker, {"lock": platform.lock_sha256, "python": PYTHON_TAG})


def _make_image(image: Environment, uv: Path) -> None:
    """Make one image's environment from nothing."""
    _remove(image.folder)
    image.folder.parent.mkdir(parents=True, exist_ok=True)
    machine.run(f"make {image.folder}", sys.executable, "-m", "venv", "--without-pip", image.folder)
    _sync(image, uv)
    write_json(image.marker, {"lock": image.lock_sha256, "python": PYTHON_TAG})


def _sync(environment: Environment, uv: Path) -> None:
    print(f"{environment.name}: installing {environment.lock.name} into {environment.folder}", flush=True)
    argv = "pip sync --quiet --require-hashes --compile-bytecode --python".split()
    with machine.progress(environment.name, environment.folder, environment.sizes.installed_bytes):
        machine.run(f"install the {environment.name} environment", uv, *argv, environment.python, environment.lock)


def our_digest() -> str:
    """What our wheel is made from, as one sha256."""
    files = [ROOT / name for name in ("pyproject.toml", "LICENSE", "README.md", "jupyterhub_config.py")]
    for folder in ("extensions", "lab/dist", "notebooks"):
        files += [path for path in (ROOT / folder).rglob("*") if path.is_file() and not _is_cache(path)]
    return digest_of(files)


def _is_cache(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    return any(part in {"__pycache__", ".ipynb_checkpoints"} or part.endswith("_cache") for part in parts)


def _build_wheel(platform: Environment) -> Path:
    """Build our distribution with the platform's own hatchling, without fetching anything."""
    folder = platform.folder / "lib/wheel"
    shutil.rmtree(folder, ignore_errors=True)
    argv = "-m hatchling build -t wheel -d".split()
    machine.run("build our wheel", platform.python, *argv, folder, cwd=ROOT)
    return next(folder.glob("*.whl"))


def _install_wheel(environment: Environment, uv: Path, wheel: Path, wheel_sha256: str) -> None:
    """Put our wheel into an environment; an image's is closed for writing afterwards."""
    print(f"{environment.name}: installing {wheel.name.split('-py3')[0]}", flush=True)
    is_image = environment.folder != ROOT / ".venv"
    if is_image:
        _set_writable(environment.folder, True)
    argv = "pip install --quiet --no-deps --reinstall --compile-bytecode --python".split()
    machine.run("install our wheel", uv, *argv, environment.python, wheel)
    write_json(environment.marker, {**environment.state(), "wheel": wheel_sha256})
    if is_image:
        _set_writable(environment.folder, False)


def _set_writable(folder: Path, writable: bool) -> None:
    """Give a whole environment its owner's write bits, or take everybody's."""
    for path in (folder, *_below(folder)):
        mode = path.stat().st_mode
        path.chmod(mode | stat.S_IWUSR if writable else mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))


def _below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        yield from (Path(parent, name) for name in (*folders, *files) if not Path(parent, name).is_symlink())


def _remove(folder: Path) -> None:
    """Remove an environment, closed for writing or not."""
    if folder.exists():
        _set_writable(folder, True)
        shutil.rmtree(folder)


def _write_indexes(plan: Plan) -> None:
    """Tell the platform, and clients inside an image, where each environment is."""
    venv = plan.platform.folder
    _note(plan, plan.platform, {"node": str(javascript.find_node(venv)), "proxy": str(javascript.proxy_script(venv))})
    for image in plan.images:
        _note(plan, image, {"title": image.title, "framework": image.framework})


def _name_older(plan: Plan) -> None:
    """Name what earlier locks left: only the person knows whether a run still uses it."""
    for image in plan.images:
        for folder in sorted((plan.home / "envs").glob(f"{image.name}-*-py3*")):
            if folder != image.folder:
                print(f"{image.name}: {folder} is of an earlier lock; remove it when no server and no run uses it")


def _note(plan: Plan, environment: Environment, more: dict[str, str]) -> None:
    index = plan.home / "envs" / f"{environment.name}.json"
    sha256 = environment.lock_sha256
    known = {"name": environment.name, "python": str(environment.python), "lock_sha256": sha256, **more}
    if known != {name: value for name, value in read_json(index).items() if name != "version"}:
        write_json(index, known | {"version": _version(environment)})


def _version(environment: Environment) -> str:
    program = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
    argv: list[str | Path] = [environment.python, "-c", program, environment.framework]
    return subprocess.run(argv, capture_output=True, encoding="utf-8", check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
