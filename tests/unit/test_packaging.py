"""What a wheel of ours holds, and that locks are hashed, whole and name no registry."""

from __future__ import annotations

import configparser
import email
import hashlib
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted(
    path for path in (*ROOT.glob("images/*/*.txt"), *ROOT.glob("tests/**/*.txt")) if path.name != "overrides.txt"
)
NPM_LOCKS = sorted(ROOT.glob("*/package-lock.json"))
DATA = "jupyterhub_atelier-0.1.0.dev0.data/data"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """Our wheel, built from the checkout as `make env` builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, timeout=60)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        yield archive


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    package = ROOT / "extensions"
    ours = {str(path.relative_to(package)) for path in (package / "atelier").rglob("*") if path.is_file()}
    ours = {name for name in ours if not re.search(r"(__pycache__|_cache)/", name)}
    held = {name for name in wheel.namelist() if name.startswith("atelier/")}
    assert held == ours
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {"atelier", "jupyterhub_atelier-0.1.0.dev0.dist-info", "jupyterhub_atelier-0.1.0.dev0.data"}
    assert "atelier/py.typed" in held


def test_the_wheel_holds_the_built_jupyterlab_extension(wheel: zipfile.ZipFile) -> None:
    folder = f"{DATA}/share/jupyter/labextensions/@jupyterhub-atelier/lab"
    about = json.loads(wheel.read(f"{folder}/package.json"))
    assert about["name"] == "@jupyterhub-atelier/lab"
    assert f"{folder}/{about['jupyterlab']['_build']['load']}" in wheel.namelist()
    assert about["version"] == json.loads((ROOT / "lab/package.json").read_text())["version"]


def test_the_wheel_brings_the_hubs_configuration_and_the_examples(wheel: zipfile.ZipFile) -> None:
    shipped = {path.relative_to(ROOT).as_posix() for path in (ROOT / "notebooks").rglob("*") if path.is_file()}
    shipped = {name for name in shipped if ".ipynb_checkpoints" not in name} | {"jupyterhub_config.py"}
    folder = f"{DATA}/share/atelier/"
    held = {name.removeprefix(folder) for name in wheel.namelist() if name.startswith(folder)}
    assert held >= shipped


def test_the_wheel_enables_the_server_extension(wheel: zipfile.ZipFile) -> None:
    settings = json.loads(wheel.read(f"{DATA}/etc/jupyter/jupyter_server_config.d/atelier.json"))
    assert settings == {"ServerApp": {"jpserver_extensions": {"atelier.server": True}}}


def test_the_wheel_installs_the_command_and_papermills_engine(wheel: zipfile.ZipFile) -> None:
    points = configparser.ConfigParser()
    points.optionxform = str  # type: ignore[assignment]
    points.read_string(wheel.read("jupyterhub_atelier-0.1.0.dev0.dist-info/entry_points.txt").decode())
    assert dict(points["console_scripts"]) == {"atelier": "atelier.cli:main"}
    assert dict(points["papermill.engine"]) == {"atelier": "atelier.engine:AtelierEngine"}


def test_a_plain_install_brings_four_small_libraries(wheel: zipfile.ZipFile) -> None:
    about = email.message_from_bytes(wheel.read("jupyterhub_atelier-0.1.0.dev0.dist-info/METADATA"))
    plain = [line for line in about.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert {re.split(r"[<>=!~\[ ;]", line)[0] for line in plain} == {"httpx", "pydantic", "pyyaml", "zstandard"}
    assert about["License-Expression"] == "BSD-3-Clause"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_lock_pins_and_hashes_everything(lock: Path) -> None:
    entries = re.split(r"\n(?=\S)", lock.read_text().strip())
    assert len(entries) >= 1
    for entry in entries:
        assert re.match(r"[a-z0-9._-]+(\[[a-z,-]+\])?==[^ ]+", entry), entry.splitlines()[0]
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_noted_size_is_that_of_this_lock(lock: Path) -> None:
    noted = json.loads((ROOT / "images/sizes.json").read_text())[str(lock.relative_to(ROOT))]
    assert noted["lock_sha256"] == hashlib.sha256(lock.read_bytes()).hexdigest(), "run `make lock`"
    assert 1e6 < noted["download_bytes"] < noted["installed_bytes"]


@pytest.mark.parametrize("lock", NPM_LOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_npm_lock_has_integrity_and_no_addresses(lock: Path) -> None:
    packages = json.loads(lock.read_text())["packages"]
    assert len(packages) > 10
    for name, package in packages.items():
        assert "resolved" not in package, name
        assert not name or package.get("link") or package["integrity"].startswith("sha512-"), name


def test_no_committed_file_names_the_host_of_a_registry(tmp_path: Path) -> None:
    hosts = registry_hosts(tmp_path)
    assert len(hosts) >= 3, hosts
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout.decode()
    words = re.compile("|".join(rf"\b{re.escape(host)}\b" for host in hosts).encode())
    named = [
        name
        for name in listed.split("\0")
        if name and (ROOT / name).is_file() and words.search((ROOT / name).read_bytes())
    ]
    assert named == []


def registry_hosts(folder: Path) -> set[str]:
    """Hosts that this machine's own clients ask: uv's and npm's settings, and where uv finds one small package."""
    venv = Path(sys.executable).parent.parent
    lock = folder / "pylock.toml"
    (folder / "one.in").write_text("idna\n")
    outputs = [
        _output(venv / "bin/uv", "help", "pip", "compile"),
        _output(venv / "lib/node/node", venv / "lib/node/npm", "config", "get", "registry"),
        _output(venv / "bin/uv", "pip", "compile", "--format", "pylock.toml", folder / "one.in", "-o", lock),
    ]
    index = re.search(r"default package index \(by default: <?(\S+?)>?\)", outputs[0])
    assert index, "uv no longer says what its default index is"
    package = tomllib.loads(lock.read_text())["packages"][0]
    addresses = [index[1], outputs[1].strip(), package["wheels"][0]["url"], package.get("index", "")]
    return {host for host in (urlsplit(address).hostname for address in addresses) if host}


def _output(*argv: str | Path) -> str:
    done = subprocess.run(argv, capture_output=True, encoding="utf-8", check=True, timeout=60, cwd="/")
    return done.stdout
