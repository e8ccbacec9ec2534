"""What a cell asks by ``input()`` and ``getpass()`` is answered in the page, also a new one, and ends with the cell."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.lab_driver import Lab, running_lab, start_service, violations

pytestmark = pytest.mark.timeout(180)

NAME = "print('before')\nname = input('Your name: ')\nprint(f'Hello {name}!')"
SECRET = "from getpass import getpass\nprint(len(getpass('Key: ')), 'letters')"
TWICE = "total = 0\nfor i in range(2):\n    total += int(input(f'number {i}? '))\nprint('sum', total)"
CELL = ".jp-NotebookPanel:visible .jp-Cell"
ASKING = ".jp-NotebookPanel:not(.lm-mod-hidden) .at-question"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with running_lab() as lab:
        start_service(lab)
        yield lab


def begin(page: Page, index: int = 0) -> Locator:
    """Run a cell; the cell."""
    page.evaluate(
        """index => {
          const { content } = window.jupyterapp.shell.currentWidget;
          content.activeCellIndex = index;
          content.activate();
          window.jupyterapp.commands.execute('notebook:run-cell');
        }""",
        index,
    )
    return page.locator(CELL).nth(index)


def texts(cell: Locator) -> Locator:
    return cell.locator(".jp-OutputArea-output")


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_a_cell_asks_and_gets_its_answers(lab: Lab, page: Page, theme: str) -> None:
    lab.notebook("ask.ipynb", NAME, TWICE)
    lab.open(page, "ask.ipynb", theme=theme)
    cell = begin(page)
    field = cell.get_by_role("textbox", name="Your name:")
    expect(field).to_be_focused()
    assert violations(page, ASKING) == []
    lab.picture(cell, f"question-{theme[-5:].strip()}")
    page.keyboard.type("Ada dd")  # which cuts the cell where the field does not keep its keys
    page.keyboard.press("Enter")
    expect(texts(cell)).to_have_text(["before\n", "Your name: Ada dd", "Hello Ada dd!\n"])
    assert page.evaluate("() => document.activeElement.closest('.jp-Cell') !== null"), "keys are nobody's"

    cell = begin(page, 1)
    for number in ("20", "22"):
        cell.get_by_role("textbox", name="number").fill(number)
        cell.get_by_role("button", name="Enter").click()
    expect(texts(cell).last).to_have_text("sum 42")
    expect(page.locator(ASKING)).to_have_count(0)


def test_a_secret_is_neither_shown_nor_kept(lab: Lab, page: Page) -> None:
    lab.notebook("secret.ipynb", SECRET)
    lab.open(page, "secret.ipynb")
    cell = begin(page)
    field = cell.get_by_label("Key:")
    expect(field).to_have_attribute("type", "password")
    field.fill("hunter22")
    field.press("Enter")
    expect(texts(cell).last).to_have_text("8 letters")
    page.evaluate("() => { window.jupyterapp.commands.execute('docmanager:save') }")
    page.wait_for_function("() => !window.jupyterapp.shell.currentWidget.context.model.dirty")
    saved = (lab.work / "secret.ipynb").read_text()
    assert "hunter22" not in saved + json.dumps(cell.inner_text())
    assert "········" in cell.inner_text()


def test_a_question_outlives_its_page_and_ends_with_its_cell(lab: Lab, page: Page) -> None:
    lab.notebook("wait.ipynb", NAME)
    lab.open(page, "wait.ipynb")
    expect(begin(page).get_by_role("textbox", name="Your name:")).to_be_visible()
    page.reload()
    page.wait_for_function("() => window.jupyterapp")
    page.evaluate("async () => { await window.jupyterapp.restored }")
    cell = page.locator(CELL).first
    cell.get_by_role("textbox", name="Your name:").fill("Bob")
    cell.get_by_role("button", name="Enter").click()
    expect(texts(cell).last).to_have_text("Hello Bob!")

    lab.idle(page)
    cell = begin(page)
    expect(cell.get_by_role("textbox", name="Your name:")).to_be_visible()
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:interrupt-kernel') }")
    expect(texts(cell).last).to_contain_text("KeyboardInterrupt")
    expect(page.locator(ASKING)).to_have_count(0)
    lab.idle(page)
