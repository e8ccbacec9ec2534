"""`make env`: what it refuses and in which words, what it takes for missing, and that its environments stay closed."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tools import environments, javascript, machine, plan
from tools.machine import Refusal
from tools.plan import Environment, Sizes

ROOT = Path(__file__).resolve().parents[2]


def make_env(folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """`make env` as a person calls it, with another home."""
    argv = ["make", "--no-print-directory", "env", f"ATELIER_HOME={folder}", f"PYTHON={sys.executable}"]
    argv += [f"{name}={value}" for name, value in environ.items()]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, encoding="utf-8", check=False, timeout=100)


@pytest.mark.parametrize("version", [(3, 10), (3, 14), (2, 7)])
def test_another_python_is_refused_with_what_to_do(version: tuple[int, int]) -> None:
    with pytest.raises(
        Refusal, match=rf"needs Python 3\.11, 3\.12 or 3\.13, and .* is {version[0]}\.{version[1]}: .*PYTHON="
    ):
        machine.check(version)


def test_an_interpreter_without_venv_is_refused(tmp_path: Path) -> None:
    program = "import sys, importlib.util; sys.modules['venv'] = None; from tools import machine; machine.check()"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    assert "has no module venv: install it" in done.stderr.splitlines()[-1]


def test_a_missing_git_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    argv = [sys.executable, "-m", "tools.environments"]
    environ = {**os.environ, "PATH": str(tmp_path / "bin"), "ATELIER_HOME": str(tmp_path / "home")}
    done = subprocess.run(argv, cwd=ROOT, env=environ, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: git is not on PATH: install it (the package git); JupyterLab and run records use it."
    ]
    assert not (tmp_path / "home").exists()


def test_an_unknown_image_names_the_known_ones(tmp_path: Path) -> None:
    done = make_env(tmp_path, IMAGES="pytorch jax")
    assert done.returncode == 2
    assert "error: IMAGES names 'jax', which there is not; there are: pytorch, tensorflow." in done.stderr


def names(home: Path, **environ: str) -> list[str]:
    """The images that a `make env` of this home is about."""
    return [image.name for image in plan.make_plan({"ATELIER_HOME": str(home), **environ}).images]


def test_a_home_keeps_to_the_images_that_it_was_made_with(tmp_path: Path) -> None:
    assert names(tmp_path) == ["pytorch", "tensorflow"]
    plan.remember_images(plan.make_plan({"ATELIER_HOME": str(tmp_path), "IMAGES": "pytorch"}))
    assert names(tmp_path) == ["pytorch"], "also when the build was interrupted"
    assert names(tmp_path, IMAGES="tensorflow") == ["tensorflow"]
    plan.remember_images(plan.make_plan({"ATELIER_HOME": str(tmp_path), "IMAGES": "tensorflow"}))
    assert names(tmp_path) == ["tensorflow"]


def test_an_image_that_a_home_offers_is_kept_up_to_date_whatever_was_asked_for_last(tmp_path: Path) -> None:
    plan.write_json(tmp_path / "envs/tensorflow.json", {"name": "tensorflow"})
    assert names(tmp_path) == ["tensorflow"], "a home from before there was a choice to remember"
    plan.remember_images(plan.make_plan({"ATELIER_HOME": str(tmp_path), "IMAGES": "pytorch"}))
    assert names(tmp_path) == ["pytorch", "tensorflow"]


def test_a_new_home_is_told_how_to_take_one_framework(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environments._announce(plan.make_plan({"ATELIER_HOME": str(tmp_path)}))
    assert "IMAGES=pytorch" in capsys.readouterr().out
    environments._announce(plan.make_plan({"ATELIER_HOME": str(tmp_path), "IMAGES": "pytorch"}))
    assert "IMAGES=" not in capsys.readouterr().out


def test_a_lock_dir_without_locks_is_refused(tmp_path: Path) -> None:
    done = make_env(tmp_path, LOCK_DIR=str(tmp_path))
    assert f"error: LOCK_DIR={tmp_path} holds no lock" in done.stderr


def test_a_lock_of_the_administrator_replaces_ours_and_has_another_folder(tmp_path: Path) -> None:
    (tmp_path / "pytorch.txt").write_text("idna==3.10 --hash=sha256:00\n")
    environ = {"ATELIER_HOME": str(tmp_path), "IMAGES": "pytorch,tensorflow"}
    ours = plan.make_plan(environ)
    theirs = plan.make_plan({**environ, "LOCK_DIR": str(tmp_path)})
    assert theirs.images[0].lock == tmp_path / "pytorch.txt"
    assert theirs.images[0].folder != ours.images[0].folder
    assert theirs.images[0].sizes == Sizes()
    assert theirs.images[1] == ours.images[1]
    assert theirs.platform == ours.platform


def test_a_full_disk_is_said_before_anything_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(
        Refusal, match=r"has .* free and 10000000\.0 GB are needed: free some, choose another disk with ATELIER_HOME="
    ):
        machine.check_space({tmp_path / "a": 6 * 10**15, tmp_path / "b/c": 4 * 10**15})
    machine.check_space({tmp_path / "a": 1, tmp_path / "b/c": 1})


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_really_small_disk_is_refused(tmp_path: Path) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=50m", "none", tmp_path], check=False).returncode:
        pytest.skip("this root may not mount")
    try:
        done = make_env(tmp_path / "home", IMAGES="pytorch")
        assert done.returncode == 2
        assert "to download" in done.stdout
        assert "error: The disk of" in done.stderr
        assert sorted(path.name for path in (tmp_path / "home/envs").iterdir()) == [".lock"]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_call_with_nothing_to_do_is_silent(pytorch_python: Path) -> None:
    done = make_env(Path(os.environ["ATELIER_TEST_HOME"]), IMAGES="pytorch")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), "the environments were not current: `make env`"


def test_an_interrupted_build_is_missing_and_a_whole_one_is_not(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("one\n")
    image = Environment("x", "X", "x", lock, tmp_path / "x", Sizes())
    assert not image.is_current
    (tmp_path / "x/bin").mkdir(parents=True)
    image.python.symlink_to(sys.executable)
    assert not image.is_current
    plan.write_json(image.marker, {"lock": image.lock_sha256, "python": plan.PYTHON_TAG})
    assert image.is_current
    image.marker.write_text('{"lock": "')
    assert not image.is_current
    plan.write_json(image.marker, {"lock": image.lock_sha256, "python": "py310"})
    assert not image.is_current
    plan.write_json(image.marker, {"lock": image.lock_sha256, "python": plan.PYTHON_TAG})
    lock.write_text("two\n")
    assert not image.is_current


def test_a_second_build_waits_for_the_first(tmp_path: Path) -> None:
    (tmp_path / "envs").mkdir()
    with (tmp_path / "envs/.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        argv = [sys.executable, "-m", "tools.environments"]
        environ = {**os.environ, "ATELIER_HOME": str(tmp_path), "IMAGES": "pytorch"}
        with subprocess.Popen(argv, cwd=ROOT, env=environ, stdout=subprocess.PIPE, encoding="utf-8") as waiting:
            assert waiting.stdout is not None
            assert waiting.stdout.readline() == f"Another build works in {tmp_path}/envs: waiting for it.\n"
            waiting.terminate()


def test_closing_an_environment_takes_every_write_bit_and_removing_it_works(tmp_path: Path) -> None:
    folder = tmp_path / "env"
    (folder / "lib").mkdir(parents=True)
    (folder / "lib/a.py").write_text("1")
    (folder / "away").symlink_to(tmp_path / "outside")
    (tmp_path / "outside").write_text("untouched")
    environments._set_writable(folder, False)
    modes = [path.lstat().st_mode for path in (folder, *folder.rglob("*")) if not path.is_symlink()]
    assert not any(mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH) for mode in modes)
    assert (tmp_path / "outside").stat().st_mode & stat.S_IWUSR
    environments._remove(folder)
    assert not folder.exists()
    assert (tmp_path / "outside").read_text() == "untouched"


def test_the_note_of_an_image_says_what_is_installed(pytorch_python: Path) -> None:
    home = Path(os.environ["ATELIER_TEST_HOME"])
    note = json.loads((home / "envs/pytorch.json").read_text())
    assert set(note) == {"name", "title", "framework", "version", "python", "lock_sha256"}
    program = "import importlib.metadata as m; print(m.version('torch'), m.version('jupyterhub-atelier'))"
    said = subprocess.run(
        [note["python"], "-c", program], check=True, capture_output=True, encoding="utf-8"
    ).stdout.split()
    assert said == [note["version"], "0.1.0.dev0"]
    folder = Path(note["python"]).parent.parent
    writable = [path for path in folder.rglob("*") if not path.is_symlink() and path.stat().st_mode & stat.S_IWUSR]
    assert writable == []


@pytest.mark.parametrize("name", ["pytorch", "tensorflow"])
@pytest.mark.timeout(120)
def test_each_image_trains_one_step(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    python = request.getfixturevalue(f"{name}_python")
    argv = [python, "-I", ROOT / "images" / name / "smoke.py"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "loss" in done.stdout.splitlines()[-1]


def test_node_modules_of_another_lock_are_not_taken(tmp_path: Path) -> None:
    (tmp_path / "node_modules").mkdir()
    wanted = {"": {}, "node_modules/a": {"version": "1.0.0"}, "node_modules/b": {"version": "2.0.0", "optional": True}}
    (tmp_path / "package-lock.json").write_text(json.dumps({"packages": wanted}))
    assert not javascript.has_modules(tmp_path)
    inventory = tmp_path / "node_modules/.package-lock.json"
    inventory.write_text(json.dumps({"packages": {"node_modules/a": {"version": "1.0.0"}}}))
    assert javascript.has_modules(tmp_path)
    inventory.write_text(json.dumps({"packages": {"node_modules/a": {"version": "1.0.1"}}}))
    assert not javascript.has_modules(tmp_path)
