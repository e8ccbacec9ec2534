"""A run goes on when everything around it ends, and whoever comes back finds its view with the whole history."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.page_driver import Records, Visitor, platform_with_images, visit
from tests.browser.run_driver import RunPane, agree
from tests.browser.work_driver import Gate, write_steps
from tests.hub_driver import Platform, wait_for


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with platform_with_images(tmp_path / "s") as platform:
        yield platform


@pytest.mark.timeout(400)
def test_a_run_outlives_tab_kernel_server_hub_and_platform(platform: Platform, browser: Browser) -> None:
    gate = write_steps(platform.user_home / "work")
    with visit(browser, platform) as ann:
        ann.log_in()
        records = Records.of(platform.login("ann"))
        ann.start_lab()
        ann.open("work/watch.ipynb")
        pane = RunPane(ann.run_cell(0).get_by_test_id("atelier-run")).wait()
        run_id = pane.id
        pane.wait_for_step(3)
        closes_the_tab(ann)
        is_whole(ann, records, gate, run_id)
        kills_the_kernel(ann, records, run_id)
        is_whole(ann, records, gate, run_id)
        stops_the_server(ann, records, run_id)
        is_whole(ann, records, gate, run_id)
        restarts_the_hub(ann, records, run_id)
        is_whole(ann, records, gate, run_id)
    down_s = restarts_the_platform(platform)
    with visit(browser, platform) as ann:
        ann.log_in()
        ann.start_lab()
        pane = is_whole(ann, records, gate, run_id)
        assert any(down_s[0] < point[2] < down_s[1] for point in records.points(run_id, "loss"))
        gate.end()
        pane.wait_for_state("Done")
        agree(pane, records)
        assert ann.troubles == []
    kinds = {file["path"]: file["kind"] for file in records.get(f"/runs/{run_id}/artifacts")["items"]}
    assert (kinds["plan.txt"], kinds["notes.txt"]) == ("saved", "written")


def is_whole(ann: Visitor, records: Records, gate: Gate, run_id: str) -> RunPane:
    """The notebook's view has every step from the first on, as the record has, and goes on."""
    pane = RunPane(ann.page.locator(f'.jp-NotebookPanel [data-run="{run_id}"]')).wait()
    with gate.held():
        told = agree(pane, records)
        steps = [point[0] for point in records.points(run_id, "loss")]
    assert told["state"] == "Running"
    assert steps == list(range(1, len(steps) + 1))
    assert told["steps"] == [len(steps)]
    assert told["log"] == [f"step {step}" for step in steps]
    pane.wait_for_step(len(steps) + 2)
    return pane


def goes_on(records: Records, run_id: str) -> None:
    """The record has more steps than a moment ago."""
    before = len(records.points(run_id, "loss"))
    wait_for("another step", lambda: len(records.points(run_id, "loss")) > before)


def closes_the_tab(ann: Visitor) -> None:
    ann.page.close()
    ann.new_page()
    ann.come_back()


def kills_the_kernel(ann: Visitor, records: Records, run_id: str) -> None:
    kernel = ann.platform.pid_of("ipykernel_launcher", "/servers/ann/")
    assert kernel is not None
    os.kill(kernel, signal.SIGKILL)
    goes_on(records, run_id)
    dialog = ann.page.get_by_role("dialog")
    if dialog.is_visible():  # JupyterLab says that it restarts the kernel
        dialog.get_by_role("button", name="Ok").click()


def stops_the_server(ann: Visitor, records: Records, run_id: str) -> None:
    ann.page.goto(f"{ann.platform.url}/hub/home")
    ann.page.get_by_role("button", name="Stop").click()
    expect(ann.page.get_by_role("heading", name="JupyterLab is not running")).to_be_visible()
    goes_on(records, run_id)
    ann.page.get_by_role("link", name="Start").click()
    ann.start_lab()


def restarts_the_hub(ann: Visitor, records: Records, run_id: str) -> None:
    """The hub dies under an open page, whose view goes on; after a reload it is there again."""
    hub = ann.platform.pid_of("jupyterhub", "jupyterhub_config.py")
    assert hub is not None
    pane = RunPane(ann.page.locator(f'.jp-NotebookPanel [data-run="{run_id}"]'))
    os.kill(hub, signal.SIGKILL)
    pane.wait_for_step(max(pane.shown()["steps"]) + 3)
    wait_for("the hub", lambda: ann.page.request.get(f"{ann.platform.url}/hub/health").ok, timeout_s=60)
    ann.page.reload()
    ann.wait_for_lab()


def restarts_the_platform(platform: Platform) -> tuple[float, float]:
    """Stop all as Ctrl-C does, and start it again; when nothing was up, in epoch seconds."""
    status, told = platform.stop()
    assert (status, "runs go on" in told) == (0, True), told
    stopped_s = time.time()
    time.sleep(1.5)  # nothing is up for some steps of the run
    started_s = time.time()
    platform.start()
    return stopped_s, started_s
