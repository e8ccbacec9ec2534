"""The product's main job by browser, from the login page to a downloaded model, and the same views in the dark."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, expect

from tests.browser.page_driver import Records, Visitor, platform_with_images, visit, without, write_notebook
from tests.browser.run_driver import COLOURS, RunPane, agree
from tests.browser.work_driver import Gate, write_training
from tests.conftest import image_python
from tests.hub_driver import Platform

ANSWER = """
import json, sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
(given,) = session.get_inputs()
(scores,) = session.run(None, {given.name: numpy.zeros((5, 12, 8), dtype="float32")})
print(json.dumps([given.shape[1:], list(scores.shape)]))
"""
NO_KERNEL = ("widget model not found", "Canceled future for")
"""What ipywidgets and JupyterLab say in the console when the kernel of an open notebook goes."""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform_with_images(tmp_path_factory.mktemp("j")) as platform:
        work = platform.user_home / "work"
        write_training(work)
        wrong = "text = 'x'\n\nraise ValueError('the third line is wrong')"
        write_notebook(work / "wrong.ipynb", "print('begins')", wrong)
        yield platform


@pytest.mark.timeout(400)
def test_from_the_login_page_to_an_exported_model(platform: Platform, browser: Browser, tmp_path: Path) -> None:
    with visit(browser, platform) as ann:
        sees_the_login_page(ann)
        ann.log_in()
        records = Records.of(platform.login("ann"))
        sees_the_catalog(ann, records)
        ann.start_lab()
        finds_the_examples(ann)
        runs_the_notebook(ann, records)
        pane = submits_by_form(ann, records)
        seen = watches(ann, pane, records)
        pane = reloads(ann, pane.id, records, seen)
        loses_the_kernel(ann, pane, records)
        sees_the_end(ann, pane, records)
        fetches_files(ann, pane, records, tmp_path)
        takes_the_model_away(ann, pane, records, tmp_path)
        cancels_another(ann, records)
        assert without(ann.troubles, *NO_KERNEL) == []


@pytest.mark.timeout(300)
def test_the_same_views_in_the_dark(platform: Platform, browser: Browser) -> None:
    with visit(browser, platform, theme="dark") as ann:
        ann.page.goto(platform.url)
        ann.looks_well("login")
        ann.log_in()
        records = Records.of(platform.login("ann"))
        starts_or_finds_lab(ann)
        assert ann.page.evaluate("() => document.body.dataset.jpThemeLight") == "false"
        ann.open("work/send.ipynb")
        pane = submits(ann, records, epochs=4)
        pane.wait_for_state("Done")
        agree(pane, records)
        ann.looks_well("done", pane.root)
        for tab in ("Files", "Model", "Details"):
            pane.open_tab(tab)
            ann.looks_well(tab.lower(), pane.root)
        failed = fails_in_the_background(ann, records)
        ann.looks_well("failed", failed.root)
        assert without(ann.troubles, *NO_KERNEL) == []


@pytest.mark.timeout(400)
def test_the_example_runs_unchanged_in_the_browser(platform: Platform, browser: Browser) -> None:
    with visit(browser, platform) as ann:
        ann.log_in()
        records = Records.of(platform.login("ann"))
        starts_or_finds_lab(ann)
        ann.open("atelier-examples/pytorch_text_lstm.ipynb")
        ann.run_all()
        version = records.get("/models/language-lstm/versions/1")
        accuracy = version["card"]["metrics"]["test_accuracy"]
        assert accuracy > version["card"]["metrics"]["baseline_characters"]
        trained = next(text for text in ann.outputs() if "epoch 16" in text)
        assert [line[:8] for line in trained.splitlines()] == [f"epoch {epoch:2}" for epoch in range(1, 17)]
        assert f"test_accuracy {accuracy:.3f}" in trained.splitlines()[-1]
        model = ann.page.locator(".jp-NotebookPanel:visible").get_by_test_id("atelier-model")
        agrees_with_registry(model, version)
        ann.looks_well("example", model)
        assert ann.troubles == []


def starts_or_finds_lab(ann: Visitor) -> None:
    """Log-in leads to JupyterLab when it runs already, else to the picker."""
    start = ann.page.get_by_role("heading", name="Start JupyterLab")
    expect(start.or_(ann.page.locator("#main"))).to_be_visible()
    if start.is_visible():
        ann.looks_well("picker")
        ann.start_lab()
    ann.wait_for_lab()


def fails_in_the_background(ann: Visitor, records: Records) -> RunPane:
    """By the toolbar's button; the note at the end leads to the panel with the user's own traceback."""
    ann.open("work/wrong.ipynb")
    ann.page.locator(".jp-NotebookPanel:visible [data-jp-item-name=atelier-run]").click()
    toast = ann.page.locator(".Toastify__toast", has_text="wrong: failed")
    expect(toast).to_be_visible()
    toast.get_by_role("button", name="Show").click()
    pane = RunPane(ann.page.locator("#atelier-runs").get_by_test_id("atelier-run")).wait()
    agree(pane, records)
    error = records.run(pane.id)["attempts"][-1]["error"]
    shown = pane.root.get_by_role("group", name="What happened")
    expect(shown).to_contain_text(f"{error['kind']}: {error['message']}")
    assert error["message"] == "the third line is wrong"
    shown.locator("summary").click()
    assert COLOURS.sub("", error["traceback"]).strip() == shown.locator("pre").inner_text().strip()
    assert "atelier" not in error["traceback"]
    return pane


def sees_the_login_page(ann: Visitor) -> None:
    ann.page.goto(ann.platform.url)
    note = ann.page.get_by_role("complementary", name="What signing in protects")
    expect(note).to_contain_text("One password opens every name")
    expect(note).to_contain_text("run as the same account of this computer")
    ann.looks_well("login")


def sees_the_catalog(ann: Visitor, records: Records) -> None:
    """The cards say what the service's catalog says."""
    expect(ann.page.get_by_role("heading", name="Start JupyterLab")).to_be_visible()
    catalog = records.get("/catalog")
    for image in catalog["images"]:
        card = card_of(ann, image)
        assert {image["title"], image["framework"], image["version"]} <= set(words_of(card)), words_of(card)
    for machine in catalog["machines"]:
        card = card_of(ann, machine)
        words = words_of(card)
        assert f"{machine['cpu']:g}" in words
        assert f"{machine['memory_bytes'] // 2**30} GiB" in words
        assert ("none" in words) == (machine["accelerators"] == {})
        assert "free" in words
        assert (machine["why"] in " ".join(words)) if not machine["available"] else "Not available." not in words
    ann.looks_well("picker")


def card_of(ann: Visitor, entry: dict[str, Any]) -> Locator:
    radio = ann.page.locator(f'input[type=radio][value="{entry["name"]}"]')
    assert radio.is_enabled() == entry["available"]
    return ann.page.locator("label.at-pick", has=radio)


def words_of(card: Locator) -> list[str]:
    return [line.strip() for line in card.inner_text().splitlines() if line.strip()]


def finds_the_examples(ann: Visitor) -> None:
    expect(ann.page.locator(".jp-DirListing-item", has_text="atelier-examples")).to_be_visible()
    copied = ann.platform.user_home / "atelier-examples"
    assert {path.name for path in copied.glob("*.ipynb")} == {"pytorch_text_lstm.ipynb", "tensorflow_image_cnn.ipynb"}


def runs_the_notebook(ann: Visitor, records: Records) -> None:
    """Run in the browser it ends in a model, whose view says what the registry says."""
    ann.open("work/train.ipynb")
    ann.run_all()
    expect(ann.cell(2).locator(".jp-OutputArea-output")).to_contain_text("epoch 2: loss")
    model = ann.cell(3).get_by_test_id("atelier-model")
    agrees_with_registry(model, records.get("/models/tiny-lstm/versions/1"))
    ann.looks_well("notebook", model)


def agrees_with_registry(model: Locator, version: dict[str, Any]) -> None:
    """The parity table has the numbers of the card."""
    expect(model).to_contain_text(f"version {version['version']}")
    expect(model.get_by_text("Equal to its source")).to_have_count(len(version["card"]["formats"]))
    onnx = version["card"]["formats"]["onnx"]
    rows = model.locator("table").first.locator("tbody tr").all_inner_texts()
    shown = [row.split("\t") for row in rows]
    assert len(shown) >= 3
    assert [int(row[0]) for row in shown] == [batch["batch"] for batch in onnx["batches"]]
    for row, batch in zip(shown, onnx["batches"], strict=True):
        assert float(row[1]) == pytest.approx(batch["max_abs"], rel=0.06, abs=1e-12)
        assert float(row[2]) == pytest.approx(batch["max_rel"], rel=0.06, abs=1e-12)
        assert row[3] == "100 %"
        assert row[6].strip() == "yes"


def submits_by_form(ann: Visitor, records: Records) -> RunPane:
    ann.open("work/send.ipynb")
    return submits(ann, records, epochs=500, pause_s=0.2, gate=str(gate_of(ann).folder))


def gate_of(ann: Visitor) -> Gate:
    gate = Gate(ann.platform.user_home / "gate")
    gate.folder.mkdir(exist_ok=True)
    return gate


def submits(ann: Visitor, records: Records, **values: Any) -> RunPane:
    """Run the form's cell, fill the form in, send it; the view that appears below."""
    older = ann.cell(0).get_by_role("group", name="Training form")
    older.evaluate_all("forms => forms.forEach(form => form.dataset.older = 'yes')")
    cell = ann.run_cell(0)
    expect(cell.locator("[data-older]"), "the form of the cell's last run goes").to_have_count(0, timeout=60_000)
    form = cell.get_by_role("group", name="Training form").first
    button = form.get_by_role("button", name="Run in background")
    expect(button).to_be_enabled(timeout=90_000)
    for name, value in values.items():
        form.get_by_role("textbox", name=re.compile(f"^{name} ")).fill(str(value))
    expect(form.locator("code").last).to_contain_text(json.dumps(values)[1:-1])
    button.click()
    pane = RunPane(cell.get_by_test_id("atelier-run")).wait()
    assert pane.id == records.newest_run()
    run = records.run(pane.id)
    assert run["spec"]["params"] == values
    assert (run["image"], run["machine"]) == ("pytorch", "cpu-small")
    ann.looks_well("form", form)
    return pane


def watches(ann: Visitor, pane: RunPane, records: Records) -> int:
    """State, progress, curves and log follow the record; how many steps were seen."""
    pane.wait_for_state("Running")
    pane.wait_for_lines(3)
    with gate_of(ann).held():
        first = agree(pane, records)
        assert first["log"][0].startswith("epoch 1: loss")
        ann.looks_well("run", pane.root)
    pane.wait_for_lines(len(first["log"]) + 3)
    with gate_of(ann).held():
        return int(min(agree(pane, records)["steps"]))


def reloads(ann: Visitor, run_id: str, records: Records, seen: int) -> RunPane:
    """After a reload in the middle the view is back, with everything from the first step on."""
    ann.page.reload()
    ann.wait_for_lab()
    pane = RunPane(ann.page.locator(f'.jp-NotebookPanel [data-run="{run_id}"]')).wait()
    pane.wait_for_lines(seen)
    expect(ann.cell(0).get_by_role("group", name="Training form").first).to_be_visible()
    with gate_of(ann).held():
        told = agree(pane, records)
    assert told["state"] == "Running"
    assert min(told["steps"]) >= seen
    assert told["log"][0].startswith("epoch 1: loss")
    return pane


def loses_the_kernel(ann: Visitor, pane: RunPane, records: Records) -> None:
    """The view needs no kernel."""
    ann.page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.shutdown() }")
    expect(ann.cell(0).locator(".af-root")).to_contain_text("The kernel behind this form is gone.")
    with gate_of(ann).held():
        before = agree(pane, records)
    pane.wait_for_step(max(before["steps"]) + 3)
    with gate_of(ann).held():
        assert agree(pane, records)["state"] == "Running"
    expect(ann.page.get_by_test_id("atelier-status")).to_have_text("1 running")


def sees_the_end(ann: Visitor, pane: RunPane, records: Records) -> None:
    gate_of(ann).end()
    pane.wait_for_state("Done", timeout_s=120)
    told = agree(pane, records)
    steps = [point[0] for point in records.points(pane.id, "loss")]
    assert steps == list(range(1, len(steps) + 1))
    assert told["steps"] == [len(steps)] * 2
    assert [line.split(":")[0] for line in told["log"] if line.startswith("epoch")] == [f"epoch {n}" for n in steps]
    expect(ann.page.get_by_test_id("atelier-status")).to_have_text("No active runs")
    ann.looks_well("done", pane.root)


def fetches_files(ann: Visitor, pane: RunPane, records: Records, folder: Path) -> None:
    """The list is the record's; a download and a copy beside the notebook are the bytes that the record names."""
    pane.open_tab("Files")
    listed = {file["path"]: file for file in records.get(f"/runs/{pane.id}/artifacts")["items"]}
    assert {"model.pt", "train.ipynb"} <= set(listed)
    expect(pane.root.locator(".at-file")).to_have_count(len(listed))
    assert set(pane.root.locator(".at-file-name").all_inner_texts()) == set(listed)
    ann.looks_well("files", pane.root)

    with ann.page.expect_download() as download:
        pane.root.get_by_role("link", name="Download model.pt").click()
    download.value.save_as(folder / "model.pt")
    assert sha256(folder / "model.pt") == listed["model.pt"]["sha256"]

    beside = ann.platform.user_home / "work" / "model.pt"
    beside.unlink()  # the one of the run in the browser
    pane.root.get_by_role("button", name="Copy model.pt back beside the notebook").click()
    expect(pane.root.get_by_role("status")).to_contain_text("Copied")
    assert sha256(beside) == listed["model.pt"]["sha256"]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def takes_the_model_away(ann: Visitor, pane: RunPane, records: Records, folder: Path) -> None:
    """The run's own view has the proof; ONNX Runtime answers from the downloaded file alone."""
    pane.open_tab("Model")
    model = pane.root.get_by_test_id("atelier-model")
    version = records.get("/models/tiny-lstm/versions/2")
    assert version["run"] == pane.id
    agrees_with_registry(model, version)
    ann.looks_well("model", pane.root)
    with ann.page.expect_download() as download:
        model.get_by_role("link", name="Download").click()
    download.value.save_as(folder / "model.zip")
    with zipfile.ZipFile(folder / "model.zip") as archive:
        archive.extractall(folder / "model")
    (onnx,) = (folder / "model").rglob("*.onnx")
    command = [str(image_python("pytorch")), "-c", ANSWER, str(onnx)]
    answered = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    assert json.loads(answered) == [[12, 8], [5, 3]]


def cancels_another(ann: Visitor, records: Records) -> None:
    gate_of(ann).reopen()
    ann.page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.startKernel() }")
    ann.wait_until_idle()
    pane = submits(ann, records, epochs=5000, pause_s=0.2, gate=str(gate_of(ann).folder))
    pane.wait_for_state("Running")
    pane.wait_for_lines(1)
    pane.root.get_by_role("button", name="Cancel").click()
    pane.root.get_by_role("button", name="Cancel run").click()
    pane.wait_for_state("Cancelled")
    assert agree(pane, records)["state"] == "Cancelled"
    assert records.run(pane.id)["state"] == "cancelled"
    ann.looks_well("cancelled", pane.root)
