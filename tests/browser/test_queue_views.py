"""A run that failed and runs that wait, as JupyterLab shows them: one card each, reordered, pinned, and kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from atelier.wire import API
from tests.browser.page_driver import Records, Visitor, platform_with_images, visit, without, write_notebook
from tests.browser.queue_driver import RunsPane, agrees_with_record
from tests.hub_driver import Platform, wait_for

FAILS = "text = 'x'\n\nraise ValueError('the third line is wrong')"
HOLDS = """\
import time
from pathlib import Path

while not Path({gate!r}).exists():
    time.sleep(0.05)
"""
SUBMITS_ONE = "import atelier\nrun = atelier.submit('wrong.ipynb', name='wrong', retries=1)\nrun.wait()"
SUBMITS_MORE = "for name in ('holds', 'a', 'b', 'c'):\n    atelier.submit('holds.py', name=name)"


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that ends what holds."""
    return tmp_path_factory.mktemp("g") / "open"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, gate: Path) -> Iterator[Platform]:
    yaml = "limits: {runs_per_user: 1}\n"
    with platform_with_images(tmp_path_factory.mktemp("q"), yaml=yaml) as platform:
        work = platform.user_home / "work"
        write_notebook(work / "wrong.ipynb", "print('begins')", FAILS)
        (work / "holds.py").write_text(HOLDS.format(gate=str(gate)))
        write_notebook(work / "send.ipynb", SUBMITS_ONE, SUBMITS_MORE)
        yield platform
        gate.touch()  # also for a test that failed: what waits would come when what holds is ended


@pytest.mark.timeout(240)
def test_a_failed_run_and_the_queue_are_told_ordered_and_kept(platform: Platform, browser: Browser, gate: Path) -> None:
    with visit(browser, platform) as ann:
        ann.log_in()
        records = Records.of(platform.login("ann"))
        ann.start_lab()
        wrong = fails(ann, records)
        panel = waits(ann, records)
        orders(panel, records)
        tells_why_one_waits(ann, records)
        pins_and_can_not_delete(ann, records, wrong)
        opens_the_executed_notebook(ann, records, wrong)
        looks_well_in_the_dark(ann, wrong)
        assert without(ann.troubles, "409") == []
    gate.touch()
    wait_for("the queue to be empty", lambda: unfinished(records) == [], timeout_s=60)
    assert state_of(records, "b") == "cancelled"


def fails(ann: Visitor, records: Records) -> str:
    """A notebook that fails in both of its attempts: one card with the record's words, the place and the attempts."""
    ann.open("work/send.ipynb")
    view = ann.run_cell(0).get_by_test_id("atelier-run")
    expect(view.get_by_test_id("atelier-run-state")).to_have_text("Failed")
    record = records.run(str(view.get_attribute("data-run")))
    card = agrees_with_record(view, record)
    assert "the third line is wrong" in card["what"], record
    assert card["next"]
    assert card["facts"]["Where"] == "cell 2 · line 3"
    assert [n for n, _ in card["attempts"]] == [2, 1]
    ann.looks_well("why-failed", view)
    return str(record["id"])


def waits(ann: Visitor, records: Records) -> RunsPane:
    """One of four runs may go at a time; the others wait, the next one first."""
    ann.run_cell(1)
    wait_for("four more runs", lambda: len(unfinished(records)) == 4)
    ann.do("atelier:show-runs")
    pane = RunsPane(ann.page.locator("#atelier-runs").get_by_test_id("atelier-runs"))
    expect(pane.root).to_be_visible()
    pane.agrees_on_the_queue(records, names=["a", "b", "c"])
    assert [name for name, _ in pane.rows()] == ["a", "b", "c", "holds", "wrong"]
    return pane


def orders(pane: RunsPane, records: Records) -> None:
    """By keys alone: first, up, down, and one is cancelled where it waits."""
    pane.pick("c", "First")
    pane.agrees_on_the_queue(records, names=["c", "a", "b"])
    pane.pick("b", "Move up")
    pane.agrees_on_the_queue(records, names=["c", "b", "a"])
    pane.pick("c", "Move down")
    pane.agrees_on_the_queue(records, names=["b", "c", "a"])
    pane.pick("b", "Cancel…")
    pane.root.get_by_role("button", name="Cancel run").click()
    pane.agrees_on_the_queue(records, names=["c", "a"])
    assert state_of(records, "b") == "cancelled"


def tells_why_one_waits(ann: Visitor, records: Records) -> None:
    panel = ann.page.locator("#atelier-runs")
    ann.looks_well("queue", panel)
    shows_places_whole(ann)
    RunsPane(panel).menu("a")
    ann.looks_well("queue-menu", panel)
    ann.page.keyboard.press("Escape")
    panel.get_by_role("button", name="a", exact=True).click()
    run = panel.get_by_test_id("atelier-run")
    record = records.run(str(run.get_attribute("data-run")))
    assert record["reason"] == "waits_for_user_limit"
    card = agrees_with_record(run, record)
    assert card["facts"] == {"In the queue": "place 2"}
    ann.looks_well("why-waits", panel)


def shows_places_whole(ann: Visitor) -> None:
    """In the side panel as wide as it is made, in a wide window and a narrow one."""
    usual = ann.page.viewport_size
    panel = ann.page.locator("#atelier-runs")
    for width in (1400, 640):
        ann.page.set_viewport_size({"width": width, "height": 900})
        RunsPane(panel).has_room_for_places(2)
        ann.picture(f"queue-{width}", panel)
    assert usual is not None
    ann.page.set_viewport_size(usual)


def pins_and_can_not_delete(ann: Visitor, records: Records, wrong: str) -> None:
    """What is refused is told in the service's own words."""
    panel = ann.page.locator("#atelier-runs")
    panel.get_by_role("button", name="All runs").click()
    pane = RunsPane(panel)
    pane.pick("wrong", "Pin")
    expect(panel.get_by_role("row").filter(has_text="wrong")).to_contain_text("pinned")
    assert records.run(wrong)["pinned"]
    panel.get_by_role("button", name="wrong", exact=True).click()
    run = panel.get_by_test_id("atelier-run")
    agrees_with_record(run, records.run(wrong))
    run.get_by_role("button", name="Delete").click()
    run.get_by_role("group", name="Delete its record").get_by_role("button", name="Delete").click()
    refused = records.http.delete(f"{API}/runs/{wrong}")
    assert refused.status_code == 409
    told = refused.json()["error"]
    expect(run.get_by_role("alert")).to_have_text(f"{told['message']} {told['hint']}".strip())
    ann.looks_well("pinned", panel)
    run.get_by_role("button", name="Keep").click()
    assert records.run(wrong)["state"] == "failed"


def opens_the_executed_notebook(ann: Visitor, records: Records, wrong: str) -> None:
    """It opens with the reason in sight."""
    ann.page.locator("#atelier-runs").get_by_role("button", name="Open a copy of the executed notebook").click()
    ann.page.wait_for_function("id => window.jupyterapp.shell.currentWidget?.context?.path?.includes(id)", arg=wrong)
    ann.wait_until_idle()
    record = records.run(wrong)
    for words in (record["message"], record["hint"]):
        said = ann.page.locator(".jp-NotebookPanel:visible .jp-OutputArea-output").get_by_text(words)
        expect(said.first).to_be_in_viewport()
    ann.picture("executed")


def looks_well_in_the_dark(ann: Visitor, wrong: str) -> None:
    ann.do("apputils:change-theme", theme="JupyterLab Dark")
    expect(ann.page.locator("body")).to_have_attribute("data-jp-theme-name", "JupyterLab Dark")
    expect(ann.page.locator("#jupyterlab-splash")).to_have_count(0)
    ann.theme = "dark"
    ann.do("atelier:open-run", id=wrong, name="wrong")
    tab = ann.page.locator(f"#atelier-{wrong}")
    expect(tab.get_by_role("group", name="What happened")).to_be_visible()
    ann.looks_well("why-failed", tab)
    panel = ann.page.locator("#atelier-runs")
    panel.get_by_role("button", name="All runs").click()
    shows_places_whole(ann)
    RunsPane(panel).menu("a")
    ann.looks_well("queue-menu", panel)
    ann.page.keyboard.press("Escape")
    panel.get_by_role("button", name="a", exact=True).click()
    expect(panel.get_by_role("group", name="What happened")).to_be_visible()
    ann.looks_well("why-waits", panel)


def unfinished(records: Records) -> list[dict[str, Any]]:
    states = "&".join(f"state={state}" for state in ("created", "queued", "starting", "running"))
    items: list[dict[str, Any]] = records.get(f"/runs?{states}")["items"]
    return items


def state_of(records: Records, name: str) -> str:
    return next(str(run["state"]) for run in records.get("/runs?limit=10")["items"] if run["name"] == name)
