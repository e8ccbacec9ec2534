"""The documents are true: links lead somewhere, and every command, setting, error code and make target is described."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

import atelier
from atelier.cli.parser import parse
from atelier.handle import RunHandle
from atelier.reasons import REASON_TEXT, Reason
from atelier.recorder import Recorder
from atelier.settings import Settings
from tools import command_page, error_codes
from tools.plan import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMESPACES = ("data", "keras", "torch", "widgets")
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_snippet_is_python_and_names_what_there_is(page: Path) -> None:
    text = page.read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    spans = [
        span
        for span in re.findall(r"`([^`\n]+)`", text)
        if re.match(r"(run|job|atelier)\.(?!yaml|json|errors)\w+", span)
    ]
    for source in [*blocks, *(span for span in spans if "…" not in span)]:
        tree = ast.parse(source)
        for name in {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}:
            first, *rest = name.split(".")
            known = {"atelier": atelier, "job": Recorder, "run": RunHandle}.get(first)
            for part in rest if known is not None else ():
                assert part in dir(known), f"{name} in {source}"
                known = getattr(known, part) if part in NAMESPACES else None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_line_is_one(page: Path) -> None:
    text = page.read_text()
    shell = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ").splitlines()
    lines = [line for line in [*shell, *re.findall(r"`(atelier [^`\n]+)`", text)] if line.startswith("atelier ")]
    names = {f"atelier {name}" for name, _ in command_page.commands(command_page.build_parser())}
    for line in lines:
        if line not in names and not any(sign in line for sign in ("…", "<", "|", "[")):
            parse(shlex.split(line)[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_source_file_that_a_page_names_is_there(page: Path) -> None:
    named = re.findall(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|toml|json|css|js))`", page.read_text())
    places = (ROOT, ROOT / "extensions" / "atelier", page.parent)
    assert [name for name in named if not any((at / name).exists() for at in places)] == []


def test_every_page_is_reached_from_the_readme() -> None:
    linked = {(ROOT / link).resolve() for link in LINK.findall((ROOT / "README.md").read_text())}
    assert {page.name for page in PAGES if page.resolve() not in linked} == {"README.md"}


def test_the_page_of_error_codes_is_what_the_source_says() -> None:
    assert error_codes.PAGE.read_text() == error_codes.page(), "python -m tools.error_codes"


def test_the_page_of_commands_is_what_the_parser_says() -> None:
    written = command_page.PAGE.read_text()
    missing = [
        name for name, _ in command_page.commands(command_page.build_parser()) if f"`atelier {name}`" not in written
    ]
    assert not missing, "python -m tools.command_page"


def test_every_setting_is_described() -> None:
    text = (ROOT / "docs/administration.md").read_text()
    code = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    words = set(re.findall(r"[a-z_]+", " ".join(code)))
    assert {name for name in setting_names(Settings) if name not in words} == set()


def setting_names(model: type[BaseModel]) -> set[str]:
    """Names of a model's fields and of all models below it."""
    found = set(model.model_fields)
    for field in model.model_fields.values():
        for inner in inner_models(field.annotation):
            found |= setting_names(inner)
    return found - {"kubernetes", "namespace", "queue"}


def inner_models(annotation: object) -> list[type[BaseModel]]:
    """Models that an annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [inner for part in get_args(annotation) for inner in inner_models(part)]


def test_every_end_of_a_run_is_documented_with_what_to_do() -> None:
    rows = (ROOT / "docs/using.md").read_text().splitlines()
    for reason in Reason:
        if not reason.value.startswith("waits_"):
            told = [row for row in rows if row.startswith(f"| `{reason.value}` |")]
            assert [row.split(" | ")[-1].removesuffix(" |") for row in told] == [REASON_TEXT[reason][1]]


def test_the_readmes_make_targets_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for page in PAGES for target in re.findall(r"make ([a-z-]+)", page.read_text())}
    assert named <= targets | {"and", "make"}


def test_no_page_speaks_of_a_place_that_is_not_the_projects() -> None:
    for page in PAGES:
        assert "/work/" not in page.read_text(), page
