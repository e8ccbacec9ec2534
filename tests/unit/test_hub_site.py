"""Folders, ports, secrets, and names in paths."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.hub.site import Ports, Site, login_name
from atelier.hub.workplace import Workplace
from atelier.local.homes import safe_name


@given(st.text(min_size=1))
def test_a_name_becomes_one_harmless_part_of_a_path(name: str) -> None:
    part = safe_name(name)

    assert part == os.path.basename(part)
    assert part.isascii()
    assert part not in {".", ".."}


@given(st.text(min_size=1), st.text(min_size=1))
def test_two_names_never_share_a_folder(one: str, other: str) -> None:
    assert (safe_name(one) == safe_name(other)) == (one == other)


def test_secrets_are_made_once_and_private(tmp_path: Path) -> None:
    site = Site(tmp_path, Ports(1, 2, 3, 4))
    site.make_folders()
    token = site.secret("service_token")

    assert site.secret("service_token") == token
    assert 32 <= len(token) <= 64  # the hub refuses longer ones
    assert len(site.secret("cookie_secret")) == 64
    assert len(site.secret("admin_password")) >= 32
    assert len(site.secret("password")) >= 8
    assert stat.S_IMODE(site.secret_file("password").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700


def test_ports_are_kept(tmp_path: Path) -> None:
    site = Site(tmp_path, Ports(8000, 2, 3, 4))
    site.save()

    assert Site.load(tmp_path) == site


def test_the_login_name_is_written_as_the_hub_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "Ann.Smith")

    assert login_name() == "ann.smith"


def test_only_the_login_user_has_the_accounts_own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "real"))

    assert Workplace.of("ann", tmp_path, "ann").home == tmp_path / "real"
    assert Workplace.of("../ann", tmp_path, "ann").home == tmp_path / "homes" / "_2e_2e_2fann"


def test_examples_come_once_and_stay_as_the_user_left_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = tmp_path / "notebooks"
    (shipped / "data").mkdir(parents=True)
    (shipped / "cnn.ipynb").write_text("one")
    (shipped / "data" / "lines.csv").write_text("a,b")
    shipped.joinpath("cnn.ipynb").chmod(0o444)
    monkeypatch.setattr("atelier.hub.workplace.shipped", lambda name: tmp_path / name)
    workplace = Workplace(tmp_path / "home", tmp_path / "server")

    assert workplace.copy_examples()
    mine = workplace.home / "atelier-examples" / "cnn.ipynb"
    assert mine.read_text() == "one"
    mine.write_text("mine")
    (shipped / "cnn.ipynb").unlink()
    (shipped / "cnn.ipynb").write_text("two")
    assert not workplace.copy_examples()
    assert mine.read_text() == "mine"
    mine.unlink()
    assert not workplace.copy_examples()
    assert not mine.exists()
