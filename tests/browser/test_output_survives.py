"""What a cell prints while its tab is closed is there when the notebook is opened again: every line, once, in order."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.hub_driver import Platform, running_platform, wait_for

LINES = 24
PAUSE_S = 0.25
CELL = f"import time\nfor i in range({LINES}):\n    print(f'line {{i}}', flush=True)\n    time.sleep({PAUSE_S})"
ALL = [f"line {i}" for i in range(LINES)]


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with running_platform(tmp_path) as platform:
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, platform.user_home / "slow.ipynb")
        yield platform


def _log_in_and_start(context: BrowserContext, platform: Platform) -> Page:
    page = context.new_page()
    page.goto(platform.url)
    page.get_by_label("Password").fill(platform.site.secret("password"))
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Start").click()
    _wait_for_lab(page)
    return page


def _wait_for_lab(page: Page) -> None:
    page.wait_for_function("() => window.jupyterapp", timeout=60_000)
    page.evaluate("async () => { await window.jupyterapp.restored }")


def _open_notebook(page: Page) -> None:
    page.evaluate(
        "() => { window.jupyterapp.commands.execute('docmanager:open', {path: 'slow.ipynb', factory: 'Notebook'}) }"
    )
    expect(page.locator(".jp-NotebookPanel:visible .jp-CodeCell").first).to_be_visible(timeout=20_000)
    page.wait_for_function(
        "() => { const kernel = window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel;"
        " return ['idle', 'busy'].includes(kernel?.status) }"
    )


def _begin(page: Page) -> None:
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")
    page.wait_for_function(
        "() => document.querySelector('.jp-OutputArea-output')?.innerText.includes('line 2')", timeout=30_000
    )


def _printed(page: Page) -> list[str]:
    text = page.locator(".jp-NotebookPanel:visible .jp-OutputArea-output").all_inner_texts()
    return "\n".join(text).split("\n") if text else []


@pytest.mark.timeout(150)
def test_every_line_is_there_after_a_closed_tab(platform: Platform, browser: Browser) -> None:
    context = browser.new_context()
    page = _log_in_and_start(context, platform)
    _open_notebook(page)
    _begin(page)
    page.close()
    time.sleep(2)  # the cell goes on printing into a closed tab
    page = context.new_page()
    page.goto(f"{platform.url}/user/ann/lab")
    _wait_for_lab(page)
    _open_notebook(page)

    last = page.locator(".jp-NotebookPanel:visible .jp-OutputArea-output", has_text=ALL[-1])
    expect(last.first).to_be_visible(timeout=30_000)
    assert [line for line in _printed(page) if line] == ALL


@pytest.mark.timeout(150)
def test_a_cell_that_ends_while_nobody_looks_is_saved(platform: Platform, browser: Browser) -> None:
    context = browser.new_context()
    page = _log_in_and_start(context, platform)
    _open_notebook(page)
    _begin(page)
    context.close()

    def on_disk() -> list[str]:
        try:
            cells = json.loads((platform.user_home / "slow.ipynb").read_text())["cells"]
        except ValueError:
            return []  # Jupyter writes in place: this reads half a save
        text = "".join("".join(output.get("text", "")) for output in cells[0]["outputs"])
        return text.splitlines()

    wait_for("the whole output in the file", lambda: on_disk() == ALL, timeout_s=LINES * PAUSE_S + 30)
