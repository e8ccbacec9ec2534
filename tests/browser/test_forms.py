"""The three forms in a real JupyterLab, in both themes: browse, train, export, and what a dead kernel looks like."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from tests.lab_driver import TOKEN, Lab, browser_page, running_lab, start_service, violations

FORM = ".jp-NotebookPanel:not(.lm-mod-hidden) .af-root"
THEMES = ("JupyterLab Light", "JupyterLab Dark")
PARAMETERS = """\
epochs: int = 2  # passes over the data
rate = 1e-3  # step size
augment = True  # flip images
seed: "int | None" = None  # for a run that can be repeated
"""
TRAINING = """\
import time
from helpers import GREETING
from atelier import current_run
print(GREETING, epochs, rate)
job = current_run()
for step in range(epochs):
    job.log(step=step, loss=1 / (step + 1))
    job.progress(step + 1, total=epochs)
    time.sleep(0.3)
"""
CATALOG = """\
catalog:
  machines:
    - {name: cpu-small, title: "1 CPU, 1 GiB", cpu: 1, memory: 1Gi, price_per_hour: 0.04}
    - {name: gpu, title: "8 GPUs", cpu: 1, memory: 1Gi, accelerators: {nvidia.com/gpu: 8}, price_per_hour: 9.9}
  roots:
    - {name: samples, title: Sample data, url: "file:///usr/share/common-licenses"}
"""
EXPORT = """\
import torch
from atelier.widgets import ExportForm
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)).eval()
ExportForm(model, torch.randn(8, 8), name="tiny")
"""
SLOW = """\
import time
from atelier.widgets import DataBrowser
browser = DataBrowser()
look = browser._answers["look"]
browser._answers["look"] = lambda **given: time.sleep(3) or look(**given)
browser
"""
UNEQUAL = """\
class Odd(torch.nn.Module):
    def forward(self, x):
        return x * (1.0 if torch.compiler.is_compiling() else 1.1)
ExportForm(Odd().eval(), torch.randn(4, 3), name="odd")
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with running_lab(yaml=CATALOG) as lab:
        _fill(lab.work)
        lab.notebook("browse.ipynb", "from atelier.widgets import DataBrowser\nbrowser = DataBrowser()\nbrowser")
        lab.notebook("train.ipynb", TRAINING, parameters=PARAMETERS)
        lab.notebook("form.ipynb", "from atelier.widgets import TrainForm\nTrainForm('train.ipynb')")
        start_service(lab)
        yield lab


def _fill(work: Path) -> None:
    (work / "data").mkdir()
    for n in range(230):
        (work / "data" / f"part-{n:03d}.csv").write_text("id,price\n1,0.5\n2,\n")
    random, rows = numpy.random.default_rng(0), 400_000
    wide = pyarrow.table({f"column{n}": random.normal(size=rows) for n in range(4)})
    pyarrow.parquet.write_table(wide, work / "wide.parquet", row_group_size=rows)
    pixels = (random.random((40, 60, 3)) * 255).astype("uint8")
    Image.fromarray(pixels).save(work / "noise.png")
    (work / "huge.ipynb").write_text('{"cells": [], "metadata": {}}' + " " * 33_000_000)
    (work / "page.html").write_text("<script>document.title = 'it ran'</script>")
    (work / "out").symlink_to("/etc")
    (work / "helpers.py").write_text("GREETING = 'hello from helpers'\n")


def _record(lab: Lab, run: str) -> dict[str, Any]:
    answer = httpx.get(
        f"http://127.0.0.1:{lab.port}/atelier/api/v1/runs/{run}", headers={"Authorization": f"token {TOKEN}"}
    )
    answer.raise_for_status()
    return dict(answer.json())


def _pick(form: Locator, name: str) -> Locator:
    form.get_by_role("button", name=name, exact=True).click()
    look = form.locator(".ab-look")
    expect(look.get_by_role("heading")).to_have_text(name)
    return look


@pytest.mark.parametrize("theme", THEMES)
def test_browse_data(lab: Lab, page: Page, theme: str) -> None:
    lab.open(page, "browse.ipynb", theme=theme)
    form = lab.run(page)
    expect(form.get_by_role("button", name="wide.parquet")).to_be_visible()
    lab.picture(form, f"data-browser-{theme[-5:].strip()}")
    assert violations(page, FORM) == []

    look = _pick(form, "wide.parquet")
    expect(look.locator("tbody tr")).to_have_count(50)
    expect(look).to_contain_text("50 of 400,000 rows, 4 columns")
    expect(look).to_contain_text('atelier.data.preview("home/wide.parquet")')
    lab.picture(form, f"data-browser-parquet-{theme[-5:].strip()}")
    assert violations(page, FORM) == []

    look = _pick(form, "noise.png")
    expect(look.get_by_role("img", name="noise.png, 60 by 40 pixels")).to_be_visible()
    look = _pick(form, "page.html")
    expect(look.locator("pre")).to_have_text("<script>document.title = 'it ran'</script>")
    assert page.title() != "it ran"
    expect(form.get_by_role("button", name="out (link)")).to_be_disabled()
    assert violations(page, FORM) == []


def test_a_big_preview_tells_its_cost_first(lab: Lab, page: Page) -> None:
    lab.open(page, "browse.ipynb")
    form = lab.run(page)
    look = _pick(form, "huge.ipynb")
    expect(look.get_by_role("status")).to_contain_text("Showing this file takes reading 31.5 MiB.")
    assert violations(page, FORM) == []
    look.get_by_role("button", name="Read 31.5 MiB").click()
    expect(form.locator(".ab-look")).to_contain_text("Read 31.5 MiB of 31.5 MiB")


def test_folders_come_page_by_page_and_the_choice_outlives_a_reload(lab: Lab, page: Page) -> None:
    lab.open(page, "browse.ipynb")
    form = lab.run(page)
    form.get_by_role("button", name="data", exact=True).click()
    expect(form).to_contain_text("200 of 230")
    form.get_by_role("button", name="Show more").click()
    expect(form).to_contain_text("230 of 230")
    expect(form.locator(".ab-table tbody tr")).to_have_count(230)
    expect(form.get_by_role("button", name="Show more")).to_be_hidden()
    _pick(form, "part-229.csv")
    form.get_by_label("Root", exact=True).select_option("Sample data")
    expect(form.get_by_role("button", name="GPL-3", exact=True)).to_be_visible()
    _pick(form, "GPL-3")
    expect(form.locator(".ab-look pre")).to_contain_text("GNU GENERAL PUBLIC LICENSE")


def test_submit_watch_reload_and_a_dead_kernel(lab: Lab, page: Page) -> None:
    lab.open(page, "form.ipynb")
    form = lab.run(page)
    submit = form.get_by_role("button", name="Run in background")
    expect(form.get_by_role("radio", name="cpu-small")).to_be_checked()
    expect(form.get_by_role("radio", name="8 GPUs")).to_be_disabled()
    expect(form).to_contain_text("2 files")
    lab.picture(form, "train-form-Light")
    assert violations(page, FORM) == []

    epochs = form.get_by_role("textbox", name="epochs")
    epochs.fill("three")
    error = form.locator(".tf-wrong .tf-error")
    expect(error).to_have_text("'epochs' takes int, and 'three' is str. Give a value like 2.")
    expect(form.get_by_role("radio", name="8 GPUs").locator("xpath=ancestor::label")).to_contain_text("8 × NVIDIA GPU")
    expect(epochs).to_have_attribute("aria-invalid", "true")
    expect(submit).to_be_disabled()
    assert violations(page, FORM) == []
    epochs.fill("3")
    expect(submit).to_be_enabled()
    expect(form).to_contain_text('atelier.submit("train.ipynb", params={"epochs": 3}')

    submit.click()
    told = form.locator(".tf-message")
    expect(told).to_contain_text("Submitted train as r-")
    run = (told.inner_text().split("as ")[1])[:12]
    view = page.locator(".jp-NotebookPanel:visible .jp-Cell").first.locator(".at-card")
    expect(view).to_contain_text(run)
    assert _record(lab, run)["spec"]["params"] == {"epochs": 3}

    _reload(page)
    view = page.locator(".jp-NotebookPanel:visible .jp-Cell").first.locator(".at-card")
    expect(view).to_contain_text(run)
    expect(view).to_contain_text("hello from helpers 3 0.001")
    record = _wait_for_end(lab, run)
    assert record["state"] == "succeeded"
    expect(view).to_contain_text(f"Done{record['name']}")
    expect(view).to_contain_text(f"loss {record['metrics']['loss']:.4f}")
    form = page.locator(FORM)
    expect(form.get_by_role("textbox", name="epochs")).to_have_value("3")

    assert lab.troubles == []
    page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart() }")
    expect(form).to_contain_text("The kernel behind this form is gone.")
    expect(form.get_by_role("button", name="Run in background")).to_be_disabled()
    expect(form.get_by_role("textbox", name="epochs")).to_be_disabled()
    expect(view).to_contain_text(run)
    assert violations(page, FORM) == []
    lab.troubles.clear()  # Lab itself complains of what it had asked the kernel that was restarted


def test_a_work_that_is_not_there_is_said_once(lab: Lab, page: Page) -> None:
    lab.notebook("missing.ipynb", "from atelier.widgets import TrainForm\nTrainForm('trian.ipynb')")
    lab.open(page, "missing.ipynb")
    form = lab.run(page)
    alert = form.get_by_role("alert").filter(visible=True)
    expect(alert).to_have_count(1)
    expect(alert).to_contain_text("work_not_found")
    expect(alert).to_contain_text("Did you mean 'train.ipynb'?")
    expect(form.get_by_role("button", name="Run in background")).to_be_hidden()
    assert violations(page, FORM) == []


def test_the_training_form_in_the_dark(lab: Lab, page: Page) -> None:
    lab.notebook("dark.ipynb", "from atelier.widgets import TrainForm\nTrainForm('train.ipynb')")
    lab.open(page, "dark.ipynb", theme="JupyterLab Dark")
    form = lab.run(page)
    expect(form.get_by_role("radio", name="cpu-small")).to_be_checked()
    form.get_by_role("textbox", name="rate").fill("fast")
    expect(form.locator(".tf-wrong .tf-error")).to_contain_text("'rate' takes float")
    lab.picture(form, "train-form-Dark")
    assert violations(page, FORM) == []


def test_widgets_of_a_kernel_that_is_gone_say_so_when_the_notebook_is_opened_again(lab: Lab, page: Page) -> None:
    form, slider = "from atelier.widgets import DataBrowser\nDataBrowser()", "import ipywidgets\nipywidgets.IntSlider()"
    lab.notebook("again.ipynb", form, slider)
    lab.open(page, "again.ipynb")
    lab.run(page)
    cell = page.locator(".jp-NotebookPanel:visible .jp-Cell").nth(1)
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")
    expect(cell.locator(".widget-slider")).to_be_visible()
    page.evaluate("() => { window.jupyterapp.commands.execute('docmanager:save') }")
    page.wait_for_function("() => !window.jupyterapp.shell.currentWidget.context.model.dirty")
    page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.shutdown() }")
    _reload(page)
    lab.show(page, "again.ipynb")
    outputs = page.locator(".jp-NotebookPanel:visible .jp-OutputArea-output .at-notice")
    expect(outputs).to_have_text(
        ["This form needs its kernel: run the cell again.", "This widget needs its kernel: run the cell again."]
    )
    assert violations(page, ".jp-NotebookPanel:not(.lm-mod-hidden) .at-root") == []
    expect(lab.run(page).get_by_role("button", name="noise.png", exact=True)).to_be_visible()
    lab.troubles[:] = [
        trouble for trouble in lab.troubles if "widget model not found" not in trouble
    ]  # ipywidgets' own


def test_a_kernel_that_lets_one_wait_is_said_to(lab: Lab, page: Page) -> None:
    lab.notebook("slow.ipynb", SLOW)
    lab.open(page, "slow.ipynb")
    form = lab.run(page)
    form.get_by_role("button", name="noise.png", exact=True).click()
    expect(form).to_contain_text("Still waiting for the kernel.")
    expect(form.get_by_role("img", name="noise.png, 60 by 40 pixels")).to_be_visible()
    expect(form).not_to_contain_text("Still waiting for the kernel.")


@pytest.mark.framework("pytorch")
def test_export_with_proof_and_download(browser: Browser, pytorch_python: Path, tmp_path: Path) -> None:
    with running_lab(kernels=[("pytorch", pytorch_python)], yaml=CATALOG) as lab, browser_page(browser, lab) as page:
        page.set_default_timeout(60_000)
        start_service(lab)
        lab.notebook("export.ipynb", EXPORT, UNEQUAL, kernel="pytorch")
        lab.open(page, "export.ipynb")
        form = lab.run(page)
        expect(form.get_by_role("checkbox", name="onnx")).to_be_checked(timeout=60_000)
        form.get_by_role("checkbox", name="pt2").check()
        assert violations(page, FORM) == []
        form.get_by_role("button", name="Export", exact=True).click()
        expect(form).to_contain_text("Exported, and equal to the model. Kept as tiny@1.", timeout=90_000)
        expect(form.locator(".ef-step[data-state='done']")).to_have_count(9)
        expect(page.locator(".jp-NotebookPanel:visible .jp-Cell").first.locator(".at-card")).to_contain_text(
            "version 1"
        )
        size = page.locator(".jp-NotebookPanel:visible .at-card").get_by_role("link").inner_text()
        expect(form).to_contain_text(f"{size.partition('(')[2].rstrip(')')} in all.")
        lab.picture(form, "export-form-Light")
        assert violations(page, FORM) == []
        with page.expect_download() as download:
            form.get_by_role("link", name="Download").click()
        download.value.save_as(tmp_path / "tiny.zip")
        names = zipfile.ZipFile(tmp_path / "tiny.zip").namelist()
        assert any(name.endswith("model.onnx") for name in names), names

        refused = lab.run(page, 1)
        refused.get_by_role("button", name="Export", exact=True).click()
        expect(refused).to_contain_text("parity_failed", timeout=90_000)
        expect(refused.locator(".ef-differs")).to_have_count(4)
        expect(refused.locator(".ef-step[data-state='failed']")).to_have_count(1)
        assert violations(page, FORM) == []
        assert lab.troubles == []


def _reload(page: Page) -> None:
    page.wait_for_function("() => !window.jupyterapp.shell.currentWidget.context.model.dirty")
    page.reload()
    page.wait_for_function("() => window.jupyterapp")
    page.evaluate("async () => { await window.jupyterapp.restored }")


def _wait_for_end(lab: Lab, run: str) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while (record := _record(lab, run))["state"] not in {"succeeded", "failed", "cancelled", "timed_out", "lost"}:
        assert time.monotonic() < deadline, f"run {run} did not end in 60 s: {record['state']}"
        time.sleep(0.2)
    return record
