"""What the supervisor starts is really there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from atelier.hub.site import Ports, Site
from atelier.up.programs import proxy_command
from tools.plan import ROOT


def test_the_proxys_own_page_for_a_silent_hub_is_there(tmp_path: Path) -> None:
    command = proxy_command(Site(tmp_path, Ports(1, 2, 3, 4)))

    folder = Path(command[command.index("--error-path") + 1])
    assert "Atelier" in (folder / "error.html").read_text()


def test_a_checkout_gives_its_examples_also_to_an_interpreter_elsewhere() -> None:
    program = (
        "import sys; sys.prefix = '/nowhere'; from atelier.local.catalog import shipped; print(shipped('notebooks'))"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "extensions")}
    said = subprocess.check_output([sys.executable, "-c", program], env=environ, encoding="utf-8", timeout=60)
    assert Path(said.strip()) == ROOT / "notebooks"
