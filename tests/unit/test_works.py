"""Finding works and reading their parameters, without running them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atelier.bundle.archive import PlannedFile, bundle_reader, write_archive
from atelier.errors import RefusedInput
from atelier.records import Work, WorkKind
from atelier.works.finding import (
    Parameter,
    check_params,
    check_work,
    find_work,
    inspect_work,
    parameters_source,
    script_argv,
    value_from_text,
)


def notebook(*cells: str | tuple[str, list[str]], metadata: dict[str, Any] | None = None) -> str:
    made = []
    for cell in cells:
        source, tags = cell if isinstance(cell, tuple) else (cell, [])
        made.append({"cell_type": "code", "source": source, "metadata": {"tags": tags}, "outputs": []})
    return json.dumps({"cells": made, "metadata": metadata or {}, "nbformat": 4, "nbformat_minor": 5})


def reader(folder: Path) -> Callable[[str], bytes]:
    return lambda name: (folder / name).read_bytes()


def inspected(tmp_path: Path, content: str | bytes, name: str = "w.ipynb") -> tuple[Parameter, ...] | None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    kind = WorkKind.NOTEBOOK if name.endswith(".ipynb") else WorkKind.SCRIPT
    return inspect_work(reader(tmp_path), Work(kind=kind, target=name))


def function_of(tmp_path: Path, target: str) -> tuple[Parameter, ...] | None:
    return inspect_work(reader(tmp_path), Work(kind=WorkKind.FUNCTION, target=target))


def refused(code: str, call: Callable[[], object]) -> RefusedInput:
    with pytest.raises(RefusedInput) as caught:
        call()
    assert caught.value.code == code, caught.value
    assert caught.value.message
    return caught.value


class TestFindWork:
    def test_finds_the_four_forms(self, tmp_path: Path) -> None:
        (tmp_path / "pkg").mkdir()
        for name in ("a.ipynb", "b.py", "pkg/__init__.py", "pkg/train.py"):
            (tmp_path / name).write_text("x = 1")
        found = [find_work(text, tmp_path) for text in ("a.ipynb", "b.py", "pkg.train", "pkg.train:main")]
        assert [(work.kind.value, work.target) for work in found] == [
            ("notebook", "a.ipynb"),
            ("script", "b.py"),
            ("module", "pkg.train"),
            ("function", "pkg.train:main"),
        ]
        assert {work.folder for work in found} == {tmp_path}
        assert found[2].path == tmp_path / "pkg" / "train.py"

    def test_work_in_another_folder_runs_in_its_own(self, tmp_path: Path) -> None:
        (tmp_path / "sub dir").mkdir()
        (tmp_path / "sub dir" / "ü.ipynb").write_text(notebook())
        found = find_work("sub dir/ü.ipynb", tmp_path)
        assert (found.folder, found.target) == (tmp_path / "sub dir", "ü.ipynb")

    def test_module_is_found_in_src_and_above_up_to_the_repository(self, tmp_path: Path) -> None:
        for folder in (".git", "src/pkg", "notebooks", "tool"):
            (tmp_path / folder).mkdir(parents=True)
        (tmp_path / "src/pkg/__init__.py").write_text("")
        (tmp_path / "tool/__main__.py").write_text("print(1)")
        assert find_work("pkg:main", tmp_path / "notebooks").folder == tmp_path / "src"
        assert find_work("tool", tmp_path / "notebooks").path == tmp_path / "tool" / "__main__.py"

    def test_linked_work_keeps_the_folder_it_is_linked_into(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "real" / "a.py").write_text("1")
        (tmp_path / "b.py").symlink_to("real/a.py")
        assert find_work("b.py", tmp_path).folder == tmp_path

    @pytest.mark.parametrize(
        ("text", "code"),
        [
            ("missing.ipynb", "work_not_found"),
            ("no.such.module", "work_not_found"),
            ("folder", "work_is_directory"),
            ("folder/", "work_is_directory"),
            ("empty.ipynb", "empty_work"),
            ("data.csv", "unknown_work"),
            ("pipe.py", "unknown_work"),
            ("", "unknown_work"),
            ("a\0b.py", "unknown_work"),
            ("x" * 5000 + ".py", "work_not_found"),
        ],
    )
    def test_refuses_what_is_no_work(self, tmp_path: Path, text: str, code: str) -> None:
        import os

        (tmp_path / "folder").mkdir()
        (tmp_path / "empty.ipynb").touch()
        (tmp_path / "data.csv").write_text("a,b")
        os.mkfifo(tmp_path / "pipe.py")
        assert refused(code, lambda: find_work(text, tmp_path)).hint

    def test_function_of_a_file_is_told_how_to_write_it(self, tmp_path: Path) -> None:
        (tmp_path / "train.py").write_text("def main(): pass")
        assert "train:main" in refused("work_not_found", lambda: find_work("train.py:main", tmp_path)).hint

    def test_names_the_nearest_file(self, tmp_path: Path) -> None:
        (tmp_path / "train.ipynb").write_text(notebook())
        error = refused("work_not_found", lambda: find_work("trian.ipynb", tmp_path))
        assert error.detail["nearest"] == "train.ipynb"
        assert "train.ipynb" in error.hint


class TestNotebook:
    def test_parameters_cell(self, tmp_path: Path) -> None:
        cell = (
            "# settings\n"
            "epochs: int = 5  # how often\n"
            "lr = 1e-3\n"
            "name = 'run'; flag = False\n"
            "sizes = [1, 2]\n"
            "pair = (1, 2)\n"
            "extra: dict = {}\n"
            "seed: int | None = None\n"
            "mode: Literal['a', 'b'] = 'a'\n"
            "steps = 16 * 1024\n"
            "path = Path('x')\n"
            "required: float\n"
            "%matplotlib inline\n"
        )
        known = {item.name: item for item in inspected(tmp_path, notebook("import x", (cell, ["parameters"]))) or ()}
        assert {name: item.type for name, item in known.items()} == {
            "epochs": "int",
            "lr": "float",
            "name": "str",
            "flag": "bool",
            "sizes": "list",
            "pair": "list",
            "extra": "dict",
            "seed": "int",
            "mode": "str",
            "steps": "int",
            "path": "any",
            "required": "float",
        }
        assert known["epochs"] == Parameter("epochs", "int", 5, help="how often")
        assert (known["steps"].default, known["pair"].default) == (16384, [1, 2])
        assert known["seed"].nullable
        assert known["mode"].choices == ("a", "b")
        assert [name for name, item in known.items() if item.required] == ["required"]

    def test_first_parameters_cell_counts_and_a_notebook_without_one_takes_none(self, tmp_path: Path) -> None:
        two = notebook(("a = 1", ["parameters"]), ("b = 1", ["parameters"]))
        assert [item.name for item in inspected(tmp_path, two) or ()] == ["a"]
        assert inspected(tmp_path, notebook("a = 1")) == ()

    @pytest.mark.parametrize(
        "source",
        [
            '%matplotlib inline\n!pip install x && echo "it\'s"\nimport os\nos?\n?os\nos.path??',
            "x = !ls\ny = %env HOME",
            "%%bash\nfor x in *; do echo $x; done",
            "%%time\nx = 1",
            "if True:\n    !ls\n    %cd /\n",
            "!ls \\\n  -l\nx = 1",
            "await something()\nasync with a as b:\n    pass",
            "x = (1\n     %2)\n",
            'text = """\n%not a magic\n!nor this\n"""\n!ls',
            "",
            "%%html\n<b>",
            "%time x = f(1)",
            "a, b = !ls",
            "print('\\d')",
        ],
    )
    def test_ipython_lines_are_no_syntax_errors(self, tmp_path: Path, source: str) -> None:
        assert inspected(tmp_path, notebook(source)) == ()

    @pytest.mark.parametrize(
        ("source", "line"),
        [
            ("x = 1\nfor y in\n", 2),
            ("!ls\n%time\nx ==== 1", 3),
            ("%%time\nx = 1\ndef f(:\n", 3),
            ("x = (1,\n", 1),
            ("!ls\nprint 'x'", 2),
        ],
    )
    def test_syntax_error_names_cell_and_line(self, tmp_path: Path, source: str, line: int) -> None:
        error = refused("syntax_error", lambda: inspected(tmp_path, notebook("a = 1", source)))
        assert (error.detail["file"], error.detail["cell"], error.detail["line"]) == ("w.ipynb", 2, line)
        assert f"cell 2, line {line}" in error.message

    @pytest.mark.parametrize(
        ("content", "code"),
        [
            (b"", "empty_work"),
            (b" \n\t", "empty_work"),
            (b"not json", "bad_notebook"),
            (b"\xff\xfe\x00", "bad_notebook"),
            (b"[]", "bad_notebook"),
            (b"{}", "bad_notebook"),
            (b'{"cells": 3}', "bad_notebook"),
            (b'{"cells": [3]}', "bad_notebook"),
            (b'{"nbformat": 3, "worksheets": []}', "bad_notebook"),
            (b'{"cells": [{"cell_type": "code", "source": 5}]}', "bad_notebook"),
            (b"[" * 100_000, "bad_notebook"),
            (notebook(metadata={"kernelspec": {"language": "R"}}).encode(), "not_python"),
            (notebook(metadata={"language_info": {"name": "julia"}}).encode(), "not_python"),
        ],
    )
    def test_refuses_what_is_no_python_notebook(self, tmp_path: Path, content: bytes, code: str) -> None:
        assert refused(code, lambda: inspected(tmp_path, content)).hint

    @pytest.mark.parametrize(
        "odd",
        [{"nbformat": 99}, {"nbformat": 5}, {"nbformat": "4"}, {"nbformat": 4.5}, {"nbformat": True},
         {"nbformat": None}, {"nbformat": 0}, {"nbformat_minor": "5"}, {"nbformat_minor": None}, {"metadata": None},
         {"cells": [{"cell_type": "code", "source": ""}]}, {"cells": [{"source": "", "metadata": {}}]}],
        ids=str,
    )  # fmt: skip
    def test_refuses_what_nbformat_would_not_take(self, tmp_path: Path, odd: dict[str, Any]) -> None:
        assert refused("bad_notebook", lambda: inspected(tmp_path, json.dumps(json.loads(notebook("1")) | odd))).hint

    def test_odd_but_valid_notebooks(self, tmp_path: Path) -> None:
        lines = {"cell_type": "code", "source": ["a = 1\n", "b = 2"], "metadata": {"tags": ["parameters"]}}
        cells = [lines, {"cell_type": "raw", "source": 5, "metadata": {}}]
        content = json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 99})
        assert [item.name for item in inspected(tmp_path, b"\xef\xbb\xbf" + content.encode()) or ()] == ["a", "b"]


class TestScript:
    def test_argparse(self, tmp_path: Path) -> None:
        source = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("data", type=str)
parser.add_argument("--learning-rate", "-l", type=float, default=1e-3, help="how fast")
parser.add_argument("--epochs", type=int, required=True)
parser.add_argument("--fast", action="store_true")
parser.add_argument("--optimizer", choices=["adam", "sgd"], default="adam")
parser.add_argument("--sizes", nargs="+", type=int)
parser.add_argument("--cache", action=argparse.BooleanOptionalAction, default=True)
parser.add_argument("-v", "--verbose", action="count")
parser.add_argument("--version", action="version", version="1")
args = parser.parse_args()
"""
        found = {item.name: item for item in inspected(tmp_path, source, "t.py") or ()}
        assert {name: item.type for name, item in found.items()} == {
            "data": "str",
            "learning_rate": "float",
            "epochs": "int",
            "fast": "bool",
            "optimizer": "str",
            "sizes": "list",
            "cache": "bool",
            "verbose": "int",
        }
        assert [name for name, item in found.items() if item.required] == ["data", "epochs"]
        assert found["learning_rate"] == Parameter("learning_rate", "float", 1e-3, help="how fast")
        assert found["optimizer"].choices == ("adam", "sgd")

    def test_command_line_reaches_the_real_parser(self, tmp_path: Path) -> None:
        import subprocess
        import sys

        script = tmp_path / "t.py"
        script.write_text(
            "import argparse, json\n"
            "p = argparse.ArgumentParser()\n"
            "p.add_argument('data')\n"
            "p.add_argument('--lr', type=float)\n"
            "p.add_argument('--fast', action='store_true')\n"
            "p.add_argument('--sizes', nargs='+', type=int)\n"
            "p.add_argument('--cache', action=argparse.BooleanOptionalAction, default=True)\n"
            "p.add_argument('-v', '--verbose', action='count', default=0)\n"
            "p.add_argument('--tag', action='append')\n"
            "print(json.dumps(vars(p.parse_args())))\n"
        )
        params = {
            "data": "-odd name",
            "lr": -0.5,
            "fast": True,
            "sizes": [1, -2],
            "cache": False,
            "verbose": 2,
            "tag": ["a", "--b"],
        }
        work = Work(kind=WorkKind.SCRIPT, target="t.py")
        argv = script_argv(reader(tmp_path), work, params)
        done = subprocess.run(
            [sys.executable, str(script), *argv], capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == params

    @pytest.mark.parametrize(
        "source",
        [
            "print(1)",
            "for n in names: parser.add_argument('--' + n)",
            "s = parser.add_subparsers(); parser.add_argument('--x')",
            "parser.add_argument('--x'); parser.parse_known_args()",
            "parser.add_argument('--x', **more)",
            "ArgumentParser(parents=[base]); parser.add_argument('--x')",
        ],
    )
    def test_unknown_where_the_source_does_not_tell(self, tmp_path: Path, source: str) -> None:
        assert inspected(tmp_path, source, "t.py") is None

    def test_without_argparse_values_go_as_options(self, tmp_path: Path) -> None:
        (tmp_path / "t.py").write_text("import sys")
        work = Work(kind=WorkKind.SCRIPT, target="t.py")
        assert script_argv(reader(tmp_path), work, {"a_b": 1, "c": "x y"}) == ["--a_b=1", "--c=x y"]

    def test_module_is_read_as_a_script(self, tmp_path: Path) -> None:
        (tmp_path / "pkg").mkdir()
        (tmp_path / "pkg" / "__main__.py").write_text("p.add_argument('--lr', type=float, default=0.1)")
        found = inspect_work(reader(tmp_path), Work(kind=WorkKind.MODULE, target="pkg"))
        assert [item.name for item in found or ()] == ["lr"]

    @pytest.mark.parametrize("source", ["def f(:", "x = (", "\x00", "(" * 5000])
    def test_syntax_error(self, tmp_path: Path, source: str) -> None:
        assert refused("syntax_error", lambda: inspected(tmp_path, source, "t.py")).detail["file"] == "t.py"


class TestFunction:
    def test_signature(self, tmp_path: Path) -> None:
        (tmp_path / "m.py").write_text(
            "async def train(\n"
            "    epochs: int,  # how often\n"
            "    lr=0.1,\n"
            "    names: 'list[str] | None' = None,\n"
            "    *,\n"
            "    path: Path = Path('x'),\n"
            "    level: Annotated[int, 'how deep'] = 1,\n"
            "    both: int | float = 1,\n"
            "): ...\n"
        )
        found = function_of(tmp_path, "m:train")
        assert found == (
            Parameter("epochs", "int", None, required=True, help="how often"),
            Parameter("lr", "float", 0.1),
            Parameter("names", "list", None, nullable=True),
            Parameter("path", "str", None, nullable=True),
            Parameter("level", "int", 1, help="how deep"),
            Parameter("both", "float", 1),
        )

    def test_reexports_are_followed(self, tmp_path: Path) -> None:
        (tmp_path / "pkg/sub").mkdir(parents=True)
        (tmp_path / "pkg/__init__.py").write_text("from .sub import run as main\nfrom .more import *")
        (tmp_path / "pkg/sub/__init__.py").write_text(
            "try:\n    from pkg.sub.impl import run\nexcept ImportError:\n    pass"
        )
        (tmp_path / "pkg/sub/impl.py").write_text("def run(a: int = 1): pass")
        (tmp_path / "pkg/more.py").write_text("def other(b=2): pass")
        assert function_of(tmp_path, "pkg:main") == (Parameter("a", "int", 1),)
        assert function_of(tmp_path, "pkg:other") == (Parameter("b", "int", 2),)

    @pytest.mark.parametrize(
        "source",
        [
            "def f(a, **more): pass",
            "f = functools.partial(g, 1)",
            "class f: pass",
            "from elsewhere import f",
            "@click.command()\ndef f(a): pass",
        ],
    )
    def test_unknown_where_the_source_does_not_tell(self, tmp_path: Path, source: str) -> None:
        (tmp_path / "m.py").write_text(source)
        assert function_of(tmp_path, "m:f") is None

    def test_missing_function_names_the_nearest(self, tmp_path: Path) -> None:
        (tmp_path / "m.py").write_text("def train(): pass\ndef test(): pass\n")
        error = refused("unknown_work", lambda: function_of(tmp_path, "m:trian"))
        assert error.detail == {"known": ["test", "train"], "nearest": "train"}
        refused("work_not_found", lambda: function_of(tmp_path, "n:train"))

    @pytest.mark.parametrize("body", ["yield", "x = [(yield)]", "if a:\n        yield from a"])
    @pytest.mark.parametrize("word", ["def", "async def"])
    def test_refuses_a_generator_of_which_no_line_would_run(self, tmp_path: Path, word: str, body: str) -> None:
        (tmp_path / "m.py").write_text(f"{word} f(a=1):\n    {body}\n")
        assert (
            "calling it runs none of its lines" in refused("unknown_work", lambda: function_of(tmp_path, "m:f")).message
        )

    @pytest.mark.parametrize(
        "source",
        [
            "def f(a=1):\n    def each():\n        yield a\n    return list(each())",
            "def f(a=1):\n    return (lambda: (yield))",
            "@gone_through\ndef f(a=1):\n    yield a",
            "async def f(a=1): pass",
        ],
    )
    def test_takes_what_runs_though_it_has_a_yield_within(self, tmp_path: Path, source: str) -> None:
        (tmp_path / "m.py").write_text(source)
        assert function_of(tmp_path, "m:f") == (Parameter("a", "int", 1),)

    def test_deep_code_is_no_trouble(self, tmp_path: Path) -> None:
        chain = "if a:\n    pass\n" + "elif b:\n    pass\n" * 300
        (tmp_path / "m.py").write_text(
            f"{chain}x = a{'.b' * 500}()\ndef f(a: {'list[' * 60}int{']' * 60} = None): pass"
        )
        assert function_of(tmp_path, "m:f") == (Parameter("a", "list", None, nullable=True),)

    def test_import_circle_ends(self, tmp_path: Path) -> None:
        (tmp_path / "a.py").write_text("from b import f")
        (tmp_path / "b.py").write_text("from a import f")
        assert function_of(tmp_path, "a:f") is None


PARAMETERS = (
    Parameter("epochs", "int", 5),
    Parameter("lr", "float", 0.1),
    Parameter("name", "str", None, required=True),
    Parameter("flag", "bool", False),
    Parameter("mode", "str", "a", choices=("a", "b")),
    Parameter("seed", "int", None, nullable=True),
    Parameter("free", "any", None),
)


class TestCheckParams:
    def test_takes_what_fits(self) -> None:
        check_params(PARAMETERS, {"name": "x", "epochs": 3, "lr": 1, "seed": None, "free": {"a": [1, None, "é"]}})

    @pytest.mark.parametrize(
        ("params", "code"),
        [
            ({"epoch": 1}, "unknown_parameter"),
            ({"epochs": 1.0}, "wrong_type"),
            ({"epochs": True}, "wrong_type"),
            ({"epochs": "1"}, "wrong_type"),
            ({"epochs": None}, "wrong_type"),
            ({"flag": 1}, "wrong_type"),
            ({"lr": True}, "wrong_type"),
            ({"mode": "c"}, "not_a_choice"),
            ({"epochs": 1}, "missing_parameter"),
            ({"lr": float("nan")}, "not_json"),
            ({"lr": float("inf")}, "not_json"),
            ({"free": {"a": [float("-inf")]}}, "not_json"),
            ({"free": (1, 2)}, "not_json"),
            ({"free": {1: 2}}, "not_json"),
            ({"free": object()}, "not_json"),
            ({"free": 10**400}, "not_json"),
            ({"x=1;print('INJECTED')\ny": 1}, "not_identifier"),
            ({"class": 1}, "not_identifier"),
            ({"a-b": 1}, "not_identifier"),
            ({"": 1}, "not_identifier"),
            ({"ﬁ": 1}, "not_identifier"),
            ({"😀": 1}, "not_identifier"),
        ],
    )
    def test_refuses(self, params: dict[str, Any], code: str) -> None:
        refused(
            code, lambda: check_params(PARAMETERS, {"name": "x", **params} if code != "missing_parameter" else params)
        )

    def test_deep_value_is_refused_not_crashed_on(self) -> None:
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        refused("not_json", lambda: check_params(None, {"x": deep}))

    def test_unknown_name_is_told_with_the_known_ones(self) -> None:
        error = refused("unknown_parameter", lambda: check_params(PARAMETERS, {"name": "x", "epocs": 1}))
        assert error.detail["nearest"] == "epochs"
        assert error.detail["known"] == [item.name for item in PARAMETERS]
        assert "epochs" in error.hint

    @pytest.mark.parametrize(
        "params", [{"a": "x" * 100_000}, {f"p{n}": "ü" * 100 for n in range(300)}, {"a": [0] * 50_000}]
    )
    def test_more_than_a_command_line_can_carry(self, params: dict[str, Any]) -> None:
        assert refused("params_too_large", lambda: check_params(None, params)).hint
        check_params(None, {name: value[:9_000] for name, value in list(params.items())[:50]})

    def test_unknown_parameters_are_not_checked(self) -> None:
        check_params(None, {"anything": 1})

    def test_notebook_without_the_cell(self, tmp_path: Path) -> None:
        (tmp_path / "a.ipynb").write_text(notebook("x = 1"))
        work = Work(kind=WorkKind.NOTEBOOK, target="a.ipynb")
        error = refused("no_parameters_cell", lambda: check_work(reader(tmp_path), work, {"epochs": 1}))
        assert "parameters" in error.hint
        assert check_work(reader(tmp_path), work, {}) == ()

    @pytest.mark.parametrize(
        "folder", ["{0}/esc", "../esc", "../../esc", "nb/../..", "nowhere", "nb/a.ipynb", "esc/..", "nb"]
    )
    def test_a_folder_that_the_work_is_not_in(self, tmp_path: Path, folder: str) -> None:
        for place in ("code/nb", "esc"):
            (tmp_path / place).mkdir(parents=True)
        for name in ("code/s.py", "code/nb/s.py", "esc/s.py"):
            (tmp_path / name).write_text("x = 1")
        (tmp_path / "code/nb/a.ipynb").write_text(notebook("x = 1"))
        files = [PlannedFile(name, tmp_path / "code" / name, 0) for name in ("nb/a.ipynb", "nb/s.py", "s.py")]
        write_archive(files, tmp_path / "bundle")
        read, folder = bundle_reader(tmp_path / "bundle"), folder.format(tmp_path)
        check_work(read, Work(kind=WorkKind.SCRIPT, target="s.py"), {})
        check_work(read, Work(kind=WorkKind.SCRIPT, target="nb/s.py", folder="nb"), {})
        for proper in ("nb", "nb/", "."):
            check_work(read, Work(kind=WorkKind.NOTEBOOK, target="nb/a.ipynb", folder=proper), {})
        refused("bad_folder", lambda: check_work(read, Work(kind=WorkKind.SCRIPT, target="s.py", folder=folder), {}))
        if folder != "nb":
            work = Work(kind=WorkKind.NOTEBOOK, target="nb/a.ipynb", folder=folder)
            refused("bad_folder", lambda: check_work(read, work, {}))


class TestSource:
    def test_is_the_same_values_again(self) -> None:
        params = {"a": 1, "b": -0.5, "c": 'it\'s\n"x"\\', "d": [None, True, {"é": "\ud800"}], "e": "'); print(1) #"}
        found: dict[str, Any] = {}
        exec(parameters_source(params), {"__builtins__": {}}, found)
        assert found == params

    @pytest.mark.parametrize("params", [{"x=1;print('INJECTED')\ny": 1}, {"a": float("nan")}, {"a": object()}])
    def test_never_becomes_code(self, params: dict[str, Any]) -> None:
        with pytest.raises(RefusedInput):
            parameters_source(params)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("5", "int", 5),
        ("5", "float", 5.0),
        ("5", "str", "5"),
        ("5", "any", 5),
        ("True", "bool", True),
        ("false", "any", False),
        ("null", "any", None),
        ("[1, 2]", "list", [1, 2]),
        ("{'a': 1}", "dict", {"a": 1}),
        ("adam", "any", "adam"),
        ("1e-3", "float", 0.001),
        ("2026-01-01", "any", "2026-01-01"),
    ],
)
def test_value_from_text(text: str, kind: Any, value: object) -> None:
    found = value_from_text(text, kind)
    assert found == value
    assert type(found) is type(value)
