"""The page of commands, printed by the command line's own parser: ``python -m tools.command_page`` writes it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator

from atelier.cli.parser import build_parser
from tools.plan import ROOT

PAGE = ROOT / "docs/commands.md"
WIDTH = "100"


def main() -> int:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    return 0


def page() -> str:
    """The whole page."""
    os.environ["COLUMNS"] = WIDTH
    parser = build_parser()
    lines = ["# Command line", "", "Made from the parser by `python -m tools.command_page`.", ""]
    lines += ["```text", parser.format_help().rstrip(), "```"]
    for name, command in commands(parser):
        lines += ["", f"## `atelier {name}`", "", "```text", command.format_help().rstrip(), "```"]
    return "\n".join(lines) + "\n"


def commands(parser: argparse.ArgumentParser, before: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command that does something, with its name as it is typed."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                deeper = list(commands(command, f"{before}{name} "))
                yield from deeper or [(f"{before}{name}", command)]


if __name__ == "__main__":
    sys.exit(main())
