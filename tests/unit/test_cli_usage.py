"""The grammar: help with an example that parses, mistakes as errors, ``--json`` on either side."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Iterator

import pytest

from atelier.cli import main
from atelier.cli.parser import build_parser, parse
from atelier.cli.submit import typed_params
from atelier.works.parameters import Parameter


def _commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """All parsers of commands that do something."""
    subparsers = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in subparsers:
        for command in action.choices.values():
            yield from _commands(command)
    if not subparsers:
        yield parser


COMMANDS = {command.prog: command for command in _commands(build_parser())}


def test_every_command_of_the_surface_is_there() -> None:
    names = "up doctor backup restore submit runs show logs cancel move fetch pin rm export".split()
    wanted = [f"atelier {name}" for name in names]
    wanted += [f"atelier data {name}" for name in ("ls", "preview")]
    wanted += [f"atelier models {name}" for name in "ls show alias fetch rm".split()]
    assert sorted(COMMANDS) == sorted(wanted)


@pytest.mark.parametrize("prog", COMMANDS)
def test_help_ends_in_one_example_that_parses(prog: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*prog.split()[1:], "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    example = re.search(r"example:\n +(atelier .*)\n", shown)
    assert example, shown
    assert example[1].startswith(prog)
    options = build_parser().parse_args(shlex.split(example[1])[1:])
    assert options.function


def test_a_group_without_its_command_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 2
    assert "Commands: ls, show, alias, fetch, rm." in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    ["", "--json", "submitt x", "show", "runs --limit many", "submit a.py -p lr",
     "runs -p lr 1", "submit a.py --wait --follow", "data",
     "models frob", "runs --no-such-option"],
)  # fmt: skip
def test_wrong_usage_is_refused_with_2(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(shlex.split(line))
    told = capsys.readouterr()
    if not line:
        assert code == 0
        assert told.out.startswith("usage: atelier")
        return
    assert code == 2
    assert told.err.startswith("error[usage]: ")
    assert "--help'" in told.err


@pytest.mark.parametrize("line", ["--json runs --limit many", "runs --limit many --json"])
def test_with_json_the_error_is_the_one_document(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(shlex.split(line)) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "usage"
    assert set(error) == {"code", "message", "detail", "hint"}


def test_options_for_everywhere_stand_before_or_after_the_command() -> None:
    for line in ("--url http://x --token-file t --json runs", "runs --url http://x --token-file t --json"):
        options = build_parser().parse_args(line.split())
        assert (options.url, options.token_file, options.as_json) == ("http://x", "t", True)


def test_values_are_read_as_the_work_declares_them() -> None:
    declared = (
        Parameter("epochs", "int"),
        Parameter("rate", "float"),
        Parameter("word", "str"),
        Parameter("sizes", "list"),
        Parameter("fast", "bool"),
    )
    pairs = [["epochs", "5"], ["rate", "1e-3"], ["word", "5"], ["sizes", "[1, 2]"], ["fast", "true"], ["more", "-1"]]
    assert typed_params(pairs, declared) == {
        "epochs": 5,
        "rate": 0.001,
        "word": "5",
        "sizes": [1, 2],
        "fast": True,
        "more": -1,
    }


def test_a_negative_value_is_a_value() -> None:
    words = ["submit", "-p", "lr", "-0.5", "a.py", "-p", "top", "-Infinity", "-p", "flag", "--wait", "--json"]
    options = parse(words)
    assert options.params == [["lr", "-0.5"], ["top", "-Infinity"], ["flag", "--wait"]]
    assert (options.work, options.wait, options.as_json) == ("a.py", False, True)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip()
    assert main(["--version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"]
