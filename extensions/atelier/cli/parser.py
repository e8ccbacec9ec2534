"""The grammar of the command line; what a command does lies in the module that its name points to."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from atelier.errors import RefusedInput

WORK_HELP = "notebook.ipynb, script.py, package.module or package.module:function"
RUN_HELP = "id of a run, a unique beginning of it, or 'last'"


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are errors of our tree, so that ``--json`` covers them too."""

    def error(self, message: str) -> NoReturn:
        more = " A file whose name begins with '-' is given as ./-name." if "required: WORK" in message else ""
        if "required: COMMAND" in message:
            more = f" Commands: {', '.join(self.commands)}."
        raise RefusedInput("usage", f"{message[:1].upper()}{message[1:]}.", hint=f"See '{self.prog} --help'.{more}")

    @property
    def commands(self) -> list[str]:
        """The names of its commands; empty for a command that has none."""
        groups = (action for action in self._actions if isinstance(action, argparse._SubParsersAction))
        return [name for group in groups for name in group.choices]


def build_parser() -> Parser:
    """The parser of ``atelier`` with all its commands."""
    common = _common()
    parser = Parser(
        prog="atelier",
        description="Train in the background, watch it, fetch and export what came of it.",
        parents=[common],
        epilog="Exit codes: 0 done, 1 the run failed or something went wrong, 2 refused input, 3 not found, "
        "4 not allowed, 5 service not reachable, 130 interrupted.",
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    adder = _Adder(commands, common)
    _platform(adder)
    _submit(adder)
    _runs(adder)
    _data(adder)
    _models(adder)
    return parser


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """What a command line says.

    ``-p NAME VALUE`` is taken out before: argparse would take a value as ``-Infinity`` or ``-x`` for an option.
    """
    rest, pairs = list(arguments), []
    while "-p" in rest[:-2]:
        place = rest.index("-p")
        pairs.append(rest[place + 1 : place + 3])
        del rest[place : place + 3]
    options = build_parser().parse_args(rest)
    if pairs and getattr(options, "params", None) is None:
        raise RefusedInput("usage", "Only 'atelier submit' takes -p.", hint="See 'atelier submit --help'.")
    if pairs:
        options.params = pairs
    return options


def _common() -> argparse.ArgumentParser:
    """Options that stand before or after the command."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    group = common.add_argument_group("everywhere")
    group.add_argument("--json", dest="as_json", action="store_true", help="one JSON document on stdout, nothing else")
    group.add_argument("--url", help="run service or hub to talk to")
    group.add_argument("--token-file", help="file that holds the token for it")
    return common


class _Adder:
    """Adds commands that share the common options."""

    def __init__(self, commands: Any, common: argparse.ArgumentParser) -> None:
        self._commands = commands
        self._common = common

    def __call__(self, name: str, function: str, text: str, example: str) -> argparse.ArgumentParser:
        """A command; ``function`` is ``module:function`` below `atelier.cli`."""
        made: argparse.ArgumentParser = self._commands.add_parser(
            name,
            parents=[self._common],
            help=text,
            description=f"{text[:1].upper()}{text[1:]}.",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(function=function)
        return made

    def group(self, name: str, text: str) -> _Adder:
        """A command that has commands of its own."""
        made = self._commands.add_parser(
            name, parents=[self._common], help=text, description=f"{text[:1].upper()}{text[1:]}."
        )
        return _Adder(
            made.add_subparsers(dest="subcommand", metavar="COMMAND", required=True, parser_class=Parser), self._common
        )


def _platform(add: _Adder) -> None:
    up = add("up", "platform:up", "start the platform on this computer, in the foreground", "atelier up --port 8000")
    up.add_argument("--port", type=int, default=8000, help="loopback port of the address that people open (8000)")
    up.add_argument("--home", help="folder of all state ($ATELIER_HOME, else ~/.local/share/atelier)")
    backup = add(
        "backup", "backups:backup", "copy all that is kept, while runs go on", "atelier backup /mnt/backup/atelier"
    )
    backup.add_argument(
        "folder", metavar="FOLDER", help="folder of the backup; one that is there is brought up to date"
    )
    backup.add_argument("--verify", action="store_true", help="read a backup again, and change nothing")
    restore = add("restore", "backups:restore", "fill a home from a backup", "atelier restore /mnt/backup/atelier")
    restore.add_argument("folder", metavar="FOLDER", help="folder that 'atelier backup' has made")
    restore.add_argument("--replace", action="store_true", help="move what the home has aside, which is refused else")
    restore.add_argument(
        "--end-runs", action="store_true", help="end runs that are at work in it, which is refused else"
    )
    doctor = add(
        "doctor", "doctor:doctor", "look at this computer and its settings, and say what to do", "atelier doctor"
    )
    doctor.add_argument("--settings", help="another settings file to check than the home's atelier.yaml")


def _submit(add: _Adder) -> None:
    submit = add(
        "submit",
        "submit:submit",
        "run a notebook, script, module or function in the background",
        "atelier submit train.ipynb -p epochs 5 --machine cpu-small --follow",
    )
    submit.add_argument("work", metavar="WORK", help=WORK_HELP)
    submit.add_argument(
        "-p",
        dest="params",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a parameter; again for more",
    )
    submit.add_argument(
        "-f", dest="params_file", metavar="FILE", help="YAML or JSON file of parameters; -p wins over it"
    )
    submit.add_argument("--image", help="image of the catalog, or 'current' for this Python")
    submit.add_argument("--machine", help="machine of the catalog")
    submit.add_argument("--nodes", type=int, default=1, help="machines that run it together (1)")
    submit.add_argument("--retries", type=int, default=0, help="new attempts after a failure (0)")
    submit.add_argument(
        "--retry-on",
        default="",
        metavar="REASON[,REASON]",
        help="reasons to try it again after, or 'any' (those that may pass by themselves)",
    )
    submit.add_argument("--priority", type=int, default=0, help="-100 to 100: higher goes first among your own (0)")
    submit.add_argument("--timeout", metavar="TIME", help="limit for running, all attempts together, as 2h")
    submit.add_argument("--queue-timeout", metavar="TIME", help="limit for waiting in the queue, as 1d")
    submit.add_argument("--stall-timeout", metavar="TIME", help="limit for being silent: no output, no metric; as 30m")
    submit.add_argument("--name", help="what lists show")
    submit.add_argument("--project", help="whose it is (your own)")
    submit.add_argument("--data", action="append", default=[], metavar="NAME[@VERSION]", help="a dataset that it reads")
    submit.add_argument("--include", action="append", default=[], metavar="PATTERN", help="files that must go along")
    submit.add_argument("--exclude", action="append", default=[], metavar="PATTERN", help="files that must not")
    then = submit.add_mutually_exclusive_group()
    then.add_argument("--wait", action="store_true", help="return when it is final; exit code 1 unless it succeeded")
    then.add_argument("--follow", action="store_true", help="as --wait, and show its log")
    then.add_argument("--dry-run", action="store_true", help="show what would be sent, and send nothing")


def _runs(add: _Adder) -> None:
    runs = add("runs", "runs:runs", "list your runs, newest first", "atelier runs --state running")
    runs.add_argument(
        "--state", help="only these: queued, starting, running, succeeded, failed, cancelled, timed_out, lost"
    )
    runs.add_argument("--limit", type=int, default=20, help="how many (20)")
    add("show", "runs:show", "say everything about a run", "atelier show last").add_argument(
        "run", metavar="RUN", help=RUN_HELP
    )
    logs = add("logs", "runs:logs", "print what a run writes", "atelier logs last -f")
    logs.add_argument("run", metavar="RUN", help=RUN_HELP)
    logs.add_argument(
        "-f", "--follow", action="store_true", help="go on until the run is final; exit code 1 unless it succeeded"
    )
    logs.add_argument("--attempt", type=int, metavar="N", help="only what this attempt has written (all attempts)")
    cancel = add("cancel", "runs:cancel", "ask a run to stop", "atelier cancel last")
    cancel.add_argument("run", metavar="RUN", help=RUN_HELP)
    cancel.add_argument("--now", action="store_true", help="end it at once, without time for a checkpoint")
    _move(add)
    fetch = add("fetch", "runs:fetch", "copy the files that a run left", "atelier fetch last -o results")
    fetch.add_argument("run", metavar="RUN", help=RUN_HELP)
    fetch.add_argument("-o", dest="out", metavar="DIR", help="folder to put them into (one named like the run)")
    pin = add("pin", "runs:pin", "keep a run, whatever the platform's retention says", "atelier pin last")
    pin.add_argument("run", metavar="RUN", help=RUN_HELP)
    pin.add_argument("--undo", action="store_true", help="take the pin away")
    add("rm", "runs:rm", "delete a run that has ended, and its files", "atelier rm r-abcdefghij").add_argument(
        "run", metavar="RUN", help=RUN_HELP
    )


def _move(add: _Adder) -> None:
    move = add("move", "runs:move", "change a waiting run's place among your own", "atelier move last --first")
    move.add_argument("run", metavar="RUN", help=RUN_HELP)
    to = move.add_mutually_exclusive_group(required=True)
    to.add_argument("--first", action="store_true", help="before all others; also ends its pause before a new attempt")
    to.add_argument("--last", action="store_true", help="behind all others")
    to.add_argument("--before", metavar="RUN", help="right before this one, at its priority")
    to.add_argument("--priority", type=int, metavar="N", help="-100 to 100; higher goes first")


def _data(add: _Adder) -> None:
    data = add.group("data", "list and preview files of the data roots")
    ls = data("ls", "data:ls", "list a folder, or the roots", "atelier data ls datasets/samples")
    ls.add_argument("place", metavar="ROOT/PATH", nargs="?", default="", help="a folder; the roots when not given")
    ls.add_argument("--limit", type=int, default=100, help="entries of a page (100)")
    ls.add_argument("--page", help="token of a later page, as printed")
    preview = data(
        "preview",
        "data:preview",
        "show the beginning of a file",
        "atelier data preview datasets/samples/data/languages.csv",
    )
    preview.add_argument("place", metavar="ROOT/PATH", help="a file")
    preview.add_argument("--limit", type=int, default=20, help="rows or lines (20)")


def _models(add: _Adder) -> None:
    export = add(
        "export",
        "models:export",
        "fetch the exported model of a run, or publish a model folder",
        "atelier export last --format onnx --name digits -o digits",
    )
    export.add_argument(
        "source", metavar="RUN|PATH", help=f"{RUN_HELP}; or a folder with model.json, which is published as --name"
    )
    export.add_argument(
        "--format", dest="formats", action="append", default=[], metavar="FORMAT", help="only this; again for more"
    )
    export.add_argument("--name", help="which model of the run; the name to publish a folder as")
    export.add_argument("-o", dest="out", metavar="DIR", help="folder to put it into (NAME-VERSION)")
    models = add.group("models", "list, show, name, fetch and delete models")
    models("ls", "models:ls", "list your models", "atelier models ls")
    models(
        "show", "models:show", "say everything about a model, with its parity", "atelier models show digits@production"
    ).add_argument("model", metavar="NAME[@VERSION|@ALIAS]")
    alias = models("alias", "models:alias", "let an alias name a version", "atelier models alias digits@3 production")
    alias.add_argument("model", metavar="NAME[@VERSION|@ALIAS]")
    alias.add_argument("alias", metavar="ALIAS")
    alias.add_argument("--remove", action="store_true", help="take the alias away; the version stays")
    fetch = models("fetch", "models:fetch", "copy a model's files", "atelier models fetch digits@3 -o digits")
    fetch.add_argument("model", metavar="NAME[@VERSION|@ALIAS]")
    fetch.add_argument("-o", dest="out", metavar="DIR", help="folder to put them into (NAME-VERSION)")
    models("rm", "models:rm", "delete one version of a model", "atelier models rm digits@3").add_argument(
        "model", metavar="NAME@VERSION"
    )
