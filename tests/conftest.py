"""What every test stands on: a home of its own, the built environments, and a suite that leaves nothing running."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.fuzzing import examples

settings.register_profile("atelier", examples(100))
settings.load_profile("atelier")

# A shell that starts the suite in the background has it ignore Ctrl-C, and all that it starts would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
MARK = "TESTS_OF_ATELIER"  # not ATELIER_…, which tests take out of the environments that they make
TEST_HOME = Path(os.environ.get("ATELIER_HOME") or ROOT / ".test-home").absolute()
KEPT = {
    # Caches of downloads stay where they are when HOME moves.
    "ATELIER_TEST_HOME": str(TEST_HOME),
    "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR") or str(Path.home() / ".cache/atelier/uv"),
    "PIP_CACHE_DIR": os.environ.get("PIP_CACHE_DIR") or str(Path.home() / ".cache/pip"),
    "NPM_CONFIG_CACHE": os.environ.get("NPM_CONFIG_CACHE") or str(Path.home() / ".npm"),
    "PLAYWRIGHT_BROWSERS_PATH": os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or str(Path.home() / ".cache/ms-playwright"),
}


@pytest.fixture(scope="session", autouse=True)
def _nobody_left() -> Iterator[None]:
    """Fail the suite when a process that a test started is alive at its end, and end it."""
    token = secrets.token_hex(8)
    os.environ[MARK] = token
    yield
    deadline = time.monotonic() + 5
    while (left := _marked(token)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, f"tests left these running: {list(left.values())}"


def _marked(token: str) -> dict[int, str]:
    """Living processes that inherited the mark, with their command lines."""
    mark, found = f"{MARK}={token}".encode(), {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_text(errors="replace").replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # gone meanwhile, or somebody else's
    found.pop(os.getpid(), None)
    return found


@pytest.fixture(scope="session", autouse=True)
def _own_home() -> Iterator[Path]:
    """Move HOME and everything of Jupyter's and XDG's into a folder of this session."""
    folder = Path(tempfile.mkdtemp(prefix="atl-"))
    patch = pytest.MonkeyPatch()
    for name in [name for name in os.environ if name.startswith(("JUPYTER", "XDG_", "ATELIER_RUN", "ATELIER_URL"))]:
        patch.delenv(name)
    patch.setenv("HOME", str(folder))
    patch.setenv("ATELIER_HOME", str(folder / "atelier"))
    for name, value in KEPT.items():
        patch.setenv(name, value)
    yield folder
    patch.undo()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def atelier_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh ``ATELIER_HOME`` with a short path (sockets), in which the built environments of `make test` are seen."""
    folder = Path(tempfile.mkdtemp(prefix="atl-"))
    if (TEST_HOME / "envs").is_dir():
        (folder / "envs").symlink_to(TEST_HOME / "envs")
    monkeypatch.setenv("ATELIER_HOME", str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def image_python(name: str) -> Path:
    """The interpreter of a built image; fails when `make env` has not built it."""
    index = TEST_HOME / "envs" / f"{name}.json"
    if not index.exists():
        pytest.fail(f"the image {name} is not built: `make env ATELIER_HOME={TEST_HOME}`")
    return Path(json.loads(index.read_text())["python"])


@pytest.fixture(scope="session")
def pytorch_python() -> Path:
    """The interpreter of the image ``pytorch``."""
    return image_python("pytorch")


@pytest.fixture(scope="session")
def tensorflow_python() -> Path:
    """The interpreter of the image ``tensorflow``."""
    return image_python("tensorflow")


@pytest.fixture(scope="session")
def postgresql_url(_nobody_left: None) -> Iterator[str]:
    """SQLAlchemy's URL of a PostgreSQL of this session, on a socket; skipped only where nobody could install one."""
    programs = _postgresql_programs()
    folder = Path(tempfile.mkdtemp(prefix="atl-pg-"))
    account = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    if account:
        shutil.chown(folder, **account)
    initdb = [programs / "initdb", "-D", folder / "db", "-U", "atelier", "-A", "trust", "--no-sync"]
    subprocess.run(initdb, check=True, capture_output=True, cwd=folder, **account)
    options = ["-c", "listen_addresses=", "-c", "fsync=off", "-c", f"unix_socket_directories={folder}"]
    log = (folder / "log").open("wb")
    server = subprocess.Popen([programs / "postgres", "-D", folder / "db", *options], stderr=log, cwd=folder, **account)
    deadline = time.monotonic() + 20
    ready = [programs / "pg_isready", "-q", "-h", folder, "-U", "atelier", "-d", "postgres"]
    while subprocess.run(ready, check=False).returncode:
        assert time.monotonic() < deadline, f"PostgreSQL did not start: {(folder / 'log').read_text()}"
        time.sleep(0.05)
    yield f"postgresql+psycopg://atelier@/postgres?host={folder}"
    server.send_signal(signal.SIGINT)
    server.wait(timeout=20)
    log.close()
    shutil.rmtree(folder, ignore_errors=True)


def _postgresql_programs() -> Path:
    named = os.environ.get("ATELIER_TEST_POSTGRESQL")
    found = [Path(named)] if named else [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if found:
        return max(found)
    if os.geteuid() == 0:
        pytest.fail("PostgreSQL is not installed: `make test` installs it")
    pytest.skip("PostgreSQL is not installed, and only root can install it")
