"""Runs in a real JupyterLab over a real service: submitted by the button, watched live, found again."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.cli_driver import service_pid, wait_for
from tests.lab_driver import TOKEN, Lab, run_cell, running_lab, start_service, violations

pytestmark = pytest.mark.timeout(180)

THEMES = ("JupyterLab Light", "JupyterLab Dark")
PANEL = "#atelier-runs"
COUNT_NOTES = """() => {
  window.mostNotes = 0;
  const count = () => document.querySelectorAll('.Toastify__toast:not([class*=slide-exit])').length;
  new MutationObserver(() => { window.mostNotes = Math.max(window.mostNotes, count()) })
    .observe(document.body, {childList: true, subtree: true});
}"""
LISTED = """view => [...view.querySelectorAll('dt')].map(name => {
  const [left, right] = [name, name.nextElementSibling].map(node => {
    const range = document.createRange();
    range.selectNodeContents(node);
    const box = node.getBoundingClientRect();
    const lines = [...range.getClientRects()].map(line => line.top);
    const {x, y, right, bottom} = box;
    return {text: node.textContent, x, y, right, bottom, lines: new Set(lines).size};
  });
  return [left, right];
})"""
IS_KEPT = """async id => {
  const {values} = await window.jupyterapp.serviceManager.workspaces.list();
  const tab = `atelier-run-tabs:${id}`;
  return values.some(({data}) => data[tab] && data['layout-restorer:data']?.main.current === tab);
}"""
OUTPUT = ".jp-NotebookPanel:not(.lm-mod-hidden) .at-root"
TRAINS = """
import time
import atelier
job = atelier.current_run()
for step in range(epochs):
    time.sleep(pause_s)
    job.log(step=step, loss=2 / (step + 1), val_loss=2.2 / (step + 1))
    job.progress(step + 1, total=epochs)
    print(f"\\x1b[32mepoch\\x1b[0m {step}", flush=True)
open("model.pt", "wb").write(b"weights" * 100)
"""


LEAVES_NUMBERS = """
import atelier
job = atelier.current_run()
for step in range(2):
    job.log(step=step, loss=2 / (step + 1))
job.log(baseline_of_the_most_frequent_class_on_the_held_out_characters=0.73419, test_accuracy=0.87691)
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with running_lab() as lab:
        lab.notebook("train.ipynb", TRAINS, parameters="epochs = 6\npause_s = 0.6")
        lab.notebook("long.ipynb", TRAINS, parameters="epochs = 2000\npause_s = 0.3")
        lab.notebook("bad.ipynb", "def inner(n):\n    return 1 / n\ninner(0)", parameters="x = 1")
        lab.notebook("numbers.ipynb", LEAVES_NUMBERS, parameters="learning_rate_of_the_first_layers = 0.1\nepochs = 2")
        lab.notebook(
            "submit.ipynb",
            "import atelier\nparams = {'learning_rate_of_the_first_layers': 0.25, 'epochs': 3}\n"
            "run = atelier.submit('numbers.ipynb', params=params)\nrun.wait()",
            "atelier.widgets.RunView(run.id)",
        )
        lab.notebook("show.ipynb", "import atelier\natelier.widgets.RunView('last')", "atelier.widgets.RunList()")
        start_service(lab)
        yield lab


def ask(lab: Lab, path: str, *, method: str = "GET") -> Any:
    """What the server answers about the runs, past the page."""
    url = f"http://127.0.0.1:{lab.port}/atelier/{path}"
    answer = httpx.request(method, url, headers={"Authorization": f"token {TOKEN}"}, timeout=30)
    assert answer.is_success, answer.text
    return answer.json()


def newest(lab: Lab) -> dict[str, Any]:
    run: dict[str, Any] = ask(lab, "api/v1/runs?limit=1")["items"][0]
    return run


def command(page: Page, name: str) -> None:
    page.evaluate("name => { window.jupyterapp.commands.execute(name) }", name)


def press_run_in_background(page: Page) -> None:
    page.locator(".jp-NotebookPanel:visible [data-jp-item-name='atelier-run']").click()


def state(view: Locator) -> Locator:
    return view.get_by_test_id("atelier-run-state")


@pytest.mark.parametrize("theme", THEMES)
def test_a_notebook_runs_in_the_background_and_is_watched(lab: Lab, page: Page, theme: str) -> None:
    name = theme[-5:].strip().lower()
    lab.open(page, "train.ipynb", theme=theme)
    command(page, "atelier:show-runs")
    panel = page.locator(PANEL)
    before = {run["id"] for run in ask(lab, "api/v1/runs")["items"]}
    press_run_in_background(page)
    expect(page.locator(".Toastify__toast")).to_contain_text("train")
    expect(page.get_by_test_id("atelier-status")).to_contain_text("1 running")
    run = newest(lab)
    assert run["id"] not in before
    panel.locator(f"[title$='{run['id']}']").click()
    expect(state(panel)).to_have_text("Running")
    expect(panel.get_by_role("progressbar")).to_have_attribute("aria-valuetext", re.compile(r"^[1-5] of 6, .* left$"))
    expect(panel.get_by_role("slider", name="loss by step")).to_be_visible()
    expect(panel.get_by_role("log", name="Text of the log")).to_contain_text("epoch 2")
    lab.picture(panel, f"panel-running-{name}")
    assert violations(page, PANEL) == []

    expect(state(panel)).to_have_text("Done")
    expect(page.locator(".Toastify__toast")).to_contain_text("train: done after")
    expect(page.get_by_test_id("atelier-status")).to_have_text("No active runs")
    assert newest(lab)["state"] == "succeeded"
    slider = panel.get_by_role("slider", name="loss by step")
    expect(slider).to_have_attribute("aria-valuetext", "step 5: loss 0.3333, val_loss 0.3667")
    assert newest(lab)["metrics"]["loss"] == pytest.approx(1 / 3)
    panel.get_by_role("tab", name="Files").click()
    (lab.work / "model.pt").unlink(missing_ok=True)
    panel.get_by_role("button", name="Copy model.pt back beside the notebook").click()
    expect(panel.get_by_text("Copied")).to_be_visible()
    assert (lab.work / "model.pt").read_bytes() == b"weights" * 100
    lab.picture(panel, f"panel-files-{name}")
    assert violations(page, PANEL) == []
    with page.expect_download() as download:
        panel.get_by_role("link", name="Download model.pt").click()
    assert download.value.path().read_bytes() == b"weights" * 100


def test_what_was_submitted_wrong_or_fails_is_told_in_words(lab: Lab, page: Page) -> None:
    lab.open(page, "bad.ipynb")
    press_run_in_background(page)
    expect(page.locator(".Toastify__toast")).to_contain_text("ZeroDivisionError")
    page.locator(".Toastify__toast").get_by_text("Show", exact=True).click()
    panel = page.locator(PANEL)
    expect(state(panel)).to_have_text("Failed")
    card = panel.get_by_role("group", name="What happened")
    expect(card).to_contain_text("ZeroDivisionError: division by zero")
    expect(card).to_contain_text("return 1 / n")
    assert "atelier" not in card.inner_text()
    lab.picture(panel, "panel-failed")
    assert violations(page, PANEL) == []


def test_notes_of_runs_are_few_and_go_while_the_runs_stay_marked(lab: Lab, page: Page) -> None:
    lab.open(page, "bad.ipynb")
    page.evaluate(COUNT_NOTES)
    for _ in range(5):
        known = newest(lab)["id"]
        press_run_in_background(page)
        wait_for(lambda known=known: newest(lab)["id"] != known, "the run that was asked for")
    wait_for(lambda: newest(lab)["state"] == "failed", "the end of the last run")
    toasts = page.locator(".Toastify__toast")
    expect(toasts.filter(has_text="bad: failed").first).to_be_visible()
    expect(toasts).to_have_count(0, timeout=40_000)
    assert page.evaluate("() => window.mostNotes") == 3
    command(page, "atelier:show-runs")
    marked = page.locator(PANEL).get_by_role("row").filter(has=page.get_by_role("button", name="bad"))
    expect(marked.first).to_contain_text("Failed")


@pytest.mark.parametrize("theme", THEMES)
def test_views_come_back_without_kernel_and_without_trust(lab: Lab, page: Page, theme: str) -> None:
    name = theme[-5:].strip().lower()
    lab.open(page, "show.ipynb", theme=theme)
    view, listed = (run_cell(page, index, ".at-root") for index in range(2))
    expect(state(view)).not_to_have_text("")
    listed.get_by_role("button", name="bad").first.click()
    expect(listed.get_by_test_id("atelier-run")).to_contain_text("ZeroDivisionError")
    lab.picture(listed, f"list-{name}")
    assert violations(page, OUTPUT) == []
    command(page, "docmanager:save")
    page.wait_for_function("() => !window.jupyterapp.shell.currentWidget.context.model.dirty")
    page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.shutdown() }")
    page.evaluate(
        """() => {
          for (const cell of window.jupyterapp.shell.currentWidget.content.model.cells) cell.trusted = false;
        }"""
    )
    page.reload()
    page.wait_for_function("() => window.jupyterapp")
    shown = page.locator(f"{OUTPUT} >> [data-testid=atelier-run]").first
    expect(shown).to_be_visible(timeout=60_000)
    run = ask(lab, f"api/v1/runs/{shown.get_attribute('data-run')}")
    words = {"succeeded": "Done", "failed": "Failed"}
    expect(state(shown)).to_have_text(words[run["state"]])


@pytest.mark.parametrize("theme", THEMES)
def test_names_and_values_of_lists_stand_side_by_side_in_an_output(lab: Lab, page: Page, theme: str) -> None:
    lab.open(page, "submit.ipynb", theme=theme)
    command(page, "notebook:clear-all-cell-outputs")  # of the other theme: what is looked at would be replaced
    command(page, "notebook:run-all-cells")
    view = page.locator(".jp-NotebookPanel:visible .jp-Cell").nth(1).locator(".at-root")
    expect(state(view)).to_have_text("Done", timeout=90_000)
    numbers = view.get_by_label("Logged once")
    expect(numbers.locator("dt")).to_have_count(2)
    lab.picture(view, f"numbers-{theme[-5:].strip().lower()}")
    for name, value in numbers.evaluate(LISTED):
        assert (value["x"], value["lines"]) == (name["x"], 1)
        assert value["y"] >= name["bottom"] - 1
    view.get_by_role("tab", name="Details").click()
    lab.picture(view, f"details-{theme[-5:].strip().lower()}")
    pairs = view.get_by_role("group", name="Details").evaluate(LISTED)
    assert ["learning_rate_of_the_first_layers", "0.25"] in [[name["text"], value["text"]] for name, value in pairs]
    for name, value in pairs:
        assert abs(value["y"] - name["y"]) < 2, (name, value)
        assert value["x"] >= name["right"], (name, value)
    assert violations(page, OUTPUT) == []


def test_a_run_in_a_tab_fills_it_and_comes_back_after_a_reload_until_it_is_deleted(lab: Lab, page: Page) -> None:
    lab.open(page, "bad.ipynb")
    run = ask(lab, "api/v1/runs?state=failed&limit=1")["items"][0]["id"]
    page.evaluate("id => { window.jupyterapp.commands.execute('atelier:open-run', {id, name: 'bad'}) }", run)
    tab = page.locator(f"#atelier-{run}")
    expect(state(tab)).to_have_text("Failed")
    log = tab.get_by_role("log", name="Text of the log")
    expect(log).to_be_visible()
    bottom = tab.evaluate("node => node.getBoundingClientRect().bottom")
    assert 0 <= bottom - log.evaluate("node => node.getBoundingClientRect().bottom") < 60
    lab.picture(tab, "tab")
    wait_for(lambda: page.evaluate(IS_KEPT, run), "the layout with the tab to be kept")
    page.reload()
    expect(state(tab)).to_have_text("Failed", timeout=60_000)
    tab.get_by_role("button", name="Delete").click()
    tab.get_by_role("group").get_by_role("button", name="Delete").click()
    expect(tab).to_have_count(0)
    assert run not in {one["id"] for one in ask(lab, "api/v1/runs")["items"]}


def test_a_theme_is_picked_while_the_system_is_followed(lab: Lab, page: Page) -> None:
    lab.open(page, "bad.ipynb")
    command(page, "apputils:adaptive-theme")
    page.wait_for_function("() => window.jupyterapp.commands.isToggled('apputils:adaptive-theme')")
    page.locator("#jupyterlab-splash").wait_for(state="detached")
    page.evaluate("() => { window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'}) }")
    expect(page.locator("body")).to_have_attribute("data-jp-theme-name", "JupyterLab Dark")
    assert not page.evaluate("() => window.jupyterapp.commands.isToggled('apputils:adaptive-theme')")
    page.locator("#jupyterlab-splash").wait_for(state="detached")


def test_a_dead_service_is_told_and_found_again_and_the_run_went_on(lab: Lab, page: Page) -> None:
    lab.open(page, "long.ipynb")
    press_run_in_background(page)
    command(page, "atelier:show-runs")
    panel = page.locator(PANEL)
    panel.get_by_role("button", name="long").first.click()
    expect(panel.get_by_role("log", name="Text of the log")).to_contain_text("epoch 1")
    pid = service_pid(lab.home)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    expect(panel.get_by_text("The run service does not answer.")).to_be_visible()
    expect(panel).to_contain_text("Shown is the state of")
    expect(page.get_by_test_id("atelier-status")).to_have_text("Runs: not reachable")
    lab.picture(panel, "panel-service-away")
    assert violations(page, PANEL) == []
    panel.get_by_role("button", name="Try now").click()
    expect(panel.get_by_text("The run service does not answer.")).to_be_visible()
    start_service(lab)
    expect(panel.get_by_text("The run service does not answer.")).to_have_count(0)
    expect(state(panel)).to_have_text("Running")
    expect(page.get_by_test_id("atelier-status")).to_contain_text("1 running")
    done = newest(lab)["progress"]["done"]
    wait_for(lambda: newest(lab)["progress"]["done"] > done, "more progress after the service's death")
    panel.get_by_role("button", name="Cancel").click()
    panel.get_by_role("button", name="Cancel run").click()
    expect(state(panel)).to_have_text("Cancelled")
    assert newest(lab)["state"] == "cancelled"
    expect(page.get_by_test_id("atelier-status")).to_have_text("No active runs")
    # what the page asked for while nobody could answer
    lab.troubles[:] = [trouble for trouble in lab.troubles if "503" not in trouble]
