"""A newcomer: an ordinary OS account, a clone, no node on PATH, nothing cached, and `make up`."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from atelier.hub.site import free_port

ROOT = Path(__file__).resolve().parents[2]
HIDDEN = {"node", "nodejs", "npm", "npx", "corepack", "uv", "uvx"}
LIMIT_S = 600

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make an account"),
    pytest.mark.timeout(LIMIT_S + 60),
]


@dataclass(frozen=True)
class Account:
    """An OS account, its home with a clone in it, and a PATH of ordinary programs."""

    name: str
    home: Path
    path: Path

    def environ(self, **more: str) -> dict[str, str]:
        """What a login shell would have, and the machine's own settings of package clients."""
        settings = re.compile("CERT|_CA_|PROXY|INDEX|REGISTRY", re.IGNORECASE)
        kept = {name: value for name, value in os.environ.items() if settings.search(name)}
        return {**kept, "HOME": str(self.home), "USER": self.name, "LOGNAME": self.name, "PATH": str(self.path), **more}


@pytest.fixture
def account() -> Iterator[Account]:
    name = f"atl{os.getpid()}"
    folder = Path(tempfile.mkdtemp(prefix="atl-account-", dir="/var/tmp"))
    folder.chmod(0o755)
    subprocess.run(["useradd", "--create-home", "--home-dir", folder / "home", name], check=True)
    programs = folder / "bin"
    programs.mkdir()
    for place in ("/bin", "/usr/bin"):
        for program in Path(place).iterdir():
            if program.name not in HIDDEN and not (programs / program.name).is_symlink():
                (programs / program.name).symlink_to(program)
    clone = folder / "home/atelier"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    subprocess.run(["chown", "-R", f"{name}:", folder / "home"], check=True)
    yield Account(name, folder / "home", programs)
    for pid in processes_of(name):
        os.kill(pid, signal.SIGKILL)
    subprocess.run(["userdel", name], check=True, capture_output=True)
    shutil.rmtree(folder)


def an_open_python() -> str:
    """This interpreter when everybody may run it, else the system's."""
    real = Path(sys.executable).resolve()
    everybody = all(os.stat(path).st_mode & 0o005 == 0o005 for path in (real, *real.parents))
    return str(real) if everybody else "/usr/bin/python3"


def test_make_up_as_an_ordinary_account_without_node(account: Account) -> None:
    port = free_port()
    assert shutil.which("node", path=account.path) is None
    command = ["make", "up", f"PORT={port}", "IMAGES=tensorflow", f"PYTHON={an_open_python()}"]
    process = subprocess.Popen(
        command,
        cwd=account.home / "atelier",
        env=account.environ(),
        user=account.name,
        group=account.name,
        extra_groups=[],
        umask=0o022,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        start_new_session=True,
    )
    try:
        output = read_until(process, "Password  in ")
        assert re.search(r"^tensorflow: up to \d+ MB to download, \d\.\d GB on disk$", output, re.MULTILINE), output
        assert f"Atelier   http://127.0.0.1:{port}" in output
        assert f"User      {account.name}" in output
        secret = Path(output.rsplit("Password  in ", 1)[1].strip())
        assert secret.is_relative_to(account.home)
        assert secret.stat().st_mode & 0o777 == 0o600
        assert secret.stat().st_uid == pwd.getpwnam(account.name).pw_uid
        assert httpx.get(f"http://127.0.0.1:{port}/hub/login").status_code == 200
    finally:
        os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert processes_of(account.name) == {}


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """What the process says up to a line with the text; its end before that fails with all it said."""
    assert process.stdout is not None
    deadline, lines = time.monotonic() + LIMIT_S, []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return "".join(lines)
        assert time.monotonic() < deadline, f"waited {LIMIT_S} s for {text!r}: {''.join(lines)}"
    raise AssertionError(f"ended before {text!r}: {''.join(lines)}")


def processes_of(name: str) -> dict[int, str]:
    """What still runs as the account: process ids with command lines."""
    argv = ["ps", "-u", name, "-o", "pid=,args="]
    lines = subprocess.run(argv, capture_output=True, encoding="utf-8", check=False).stdout.splitlines()
    return {int(pid): args for pid, args in (line.split(maxsplit=1) for line in lines)}
