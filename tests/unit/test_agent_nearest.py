"""What is near to a name that a work asked for in vain, told from the exception alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from atelier.agent.nearest import Surroundings, explained, modules_of
from atelier.agent.outcome import Result, UserError


def environment(root: Path, *names: str) -> Path:
    """An interpreter's path, in an environment with these modules; nothing is run for it."""
    site = root / "lib/python3.11/site-packages"
    site.mkdir(parents=True)
    for name in names:
        (site / name).touch()
    return root / "bin/python"


@pytest.fixture
def around(tmp_path: Path) -> Surroundings:
    """A work in ``lab/`` of its bundle, in an image with torch, numpy and a module in C."""
    work = tmp_path / "work"
    for name in ("lab/train.py", "lab/data/train.csv", "lab/data/test.csv", "shared/tools.py", ".git/config"):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).touch()
    image = environment(
        tmp_path / "image", "torch", "numpy", "_fast.cpython-311-x86_64-linux-gnu.so", "torch.dist-info"
    )
    others = {"tensorflow": str(environment(tmp_path / "other", "keras", "tensorflow"))}
    return Surroundings("pytorch", [image, tmp_path / "nowhere/bin/python"], others, work, work / "lab")


def test_the_modules_of_an_environment_are_read_from_their_names(tmp_path: Path) -> None:
    names = ("numpy", "six.py", "_fast.cpython-311-x86_64-linux-gnu.so", "numpy-2.dist-info", "x.pth")
    assert modules_of(environment(tmp_path, *names)) == {"numpy", "six", "_fast"}
    assert modules_of(Path("/nowhere/bin/python")) == set()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("keras", "The image 'tensorflow' has it, 'pytorch' does not."),
        ("keras.layers", "The image 'tensorflow' has it, 'pytorch' does not."),
        ("trch", "The image 'pytorch' does not have it; the nearest that it has is 'torch'."),
        ("sklearn", "The image 'pytorch' does not have it. Its package is called 'scikit-learn'."),
        ("torch.nosuch", "The image 'pytorch' has 'torch', but it has no such part."),
        ("tools", "There is 'shared/tools.py' beside the work, but its folder is not where modules are looked for."),
        ("zzz", "The image 'pytorch' does not have it."),
        ("jsn", "The image 'pytorch' does not have it; the nearest that it has is 'json'."),
    ],
)
def test_a_missing_module_is_told_with_what_there_is(around: Surroundings, name: str, words: str) -> None:
    assert around.words_on(UserError("ModuleNotFoundError", f"No module named {name!r}", "")) == words


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        ("data/trian.csv", "data/train.csv"),
        ("train.csv", "data/train.csv"),
        ("/home/ann/project/data/test.csv", "data/test.csv"),
        ("Train.py", "train.py"),
        ("tools.py", "../shared/tools.py"),
        ("nvcc", None),
        ("config", None),
        ("model.safetensors", None),
    ],
)
def test_a_missing_file_is_told_with_the_nearest_name(around: Surroundings, asked: str, nearest: str | None) -> None:
    error = UserError("FileNotFoundError", f"[Errno 2] No such file or directory: {asked!r}", "")
    assert around.words_on(error) == (f"The nearest file in the work's folder is {nearest!r}." if nearest else "")


def test_odd_names_are_read(around: Surroundings) -> None:
    (around.folder / "it's 字.csv").touch()
    error = UserError("FileNotFoundError", """[Errno 2] No such file or directory: "it's 字.cvs" """, "")
    assert around.words_on(error) == """The nearest file in the work's folder is "it's 字.csv"."""


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("ValueError", "No module named 'trch'"),
        ("ImportError", "cannot import name 'x' from 'torch'"),
        ("FileNotFoundError", "it is gone"),
        ("FileNotFoundError", "[Errno 2] No such file or directory: 'no end"),
        ("OSError", "[Errno 2] No such file or directory: 'train.csv'"),
    ],
)
def test_nothing_is_guessed(around: Surroundings, kind: str, message: str) -> None:
    assert around.words_on(UserError(kind, message, "")) == ""


def test_the_message_says_more_and_all_else_stays(around: Surroundings) -> None:
    error = UserError("ModuleNotFoundError", "No module named 'zzz'", "", file="train.py", line=3)
    before = Result("failed", "import_error", "No module named 'zzz' (train.py, line 3)", 1, error)
    after = explained(before, around)
    assert after.message == "No module named 'zzz' (train.py, line 3). The image 'pytorch' does not have it."
    assert after.as_json() | {"message": before.message} == before.as_json()
    assert explained(Result("succeeded"), around) == Result("succeeded")
