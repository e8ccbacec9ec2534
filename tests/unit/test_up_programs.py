"""What the supervisor starts is really there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from atelier.hub.site import Ports, Site
from atelier.local.catalog import shipped
from atelier.up.programs import proxy_command
from tools.plan import ROOT


def test_the_proxys_own_page_for_a_silent_hub_is_there(tmp_path: Path) -> None:
    command = proxy_command(Site(tmp_path, Ports(1, 2, 3, 4)))

    folder = Path(command[command.index("--error-path") + 1])
    assert "Atelier" in (folder / "error.html").read_text()


def test_a_checkout_gives_its_examples_also_to_an_interpreter_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))

    assert shipped("notebooks") == ROOT / "notebooks"
    assert shipped("jupyterhub_config.py") == ROOT / "jupyterhub_config.py"
    assert shipped("nothing") is None
