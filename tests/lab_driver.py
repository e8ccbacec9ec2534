"""A real JupyterLab with our server extension and labextension over a home of its own, and a page that works in it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import nbformat
from playwright.sync_api import Browser, Locator, Page, expect

from tests.cli_driver import stop_service

ROOT = Path(__file__).resolve().parent.parent
AXE = ROOT / "lab" / "node_modules" / "axe-core" / "axe.min.js"
LABEXTENSION = ROOT / "lab" / "dist"
TOKEN = "a-token-of-the-tests"
PICTURES = Path(os.environ.get("ATELIER_TEST_HOME") or tempfile.gettempdir()) / "pictures"


@dataclass
class Lab:
    """A running JupyterLab; ``work`` is its root folder and the home of its kernels."""

    work: Path
    home: Path
    port: int
    troubles: list[str] = field(default_factory=list)

    def notebook(self, name: str, *cells: str, kernel: str = "python3", parameters: str | None = None) -> None:
        """Write a notebook of code cells; the first is tagged ``parameters`` when that is given."""
        made = [nbformat.v4.new_code_cell(source) for source in cells]
        if parameters is not None:
            made.insert(0, nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
        notebook = nbformat.v4.new_notebook(cells=made)
        notebook.metadata["kernelspec"] = {"name": kernel, "display_name": kernel, "language": "python"}
        nbformat.write(notebook, self.work / name)

    def open(self, page: Page, name: str, *, theme: str = "JupyterLab Light") -> None:
        """Open a notebook alone in a fresh workspace, its kernel idle."""
        page.goto(f"http://127.0.0.1:{self.port}/lab/workspaces/w{time.monotonic_ns()}?reset&token={TOKEN}")
        page.wait_for_function("() => window.jupyterapp", timeout=60_000)
        page.evaluate("async () => { await window.jupyterapp.restored }")
        self._take_theme(page, theme)
        page.evaluate("() => { window.jupyterapp.shell.collapseLeft() }")
        self.show(page, name)

    def _take_theme(self, page: Page, theme: str) -> None:
        """Change the theme between two splash screens: Lab fails when the second comes before the first has gone."""
        splash = page.locator("#jupyterlab-splash")
        splash.wait_for(state="detached")
        page.evaluate(
            "async theme => { await window.jupyterapp.commands.execute('apputils:change-theme', {theme}) }", theme
        )
        splash.wait_for(state="detached")

    def show(self, page: Page, name: str) -> None:
        """Bring a notebook to the front, its kernel idle."""
        page.evaluate(
            "path => { window.jupyterapp.commands.execute('docmanager:open', {path, factory: 'Notebook'}) }", name
        )
        expect(page.locator(".jp-NotebookPanel:visible .jp-CodeCell").first).to_be_visible(timeout=30_000)
        self.idle(page)

    def idle(self, page: Page) -> None:
        """Wait for the kernel."""
        page.wait_for_function(
            "() => window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'",
            timeout=60_000,
        )

    def run(self, page: Page, index: int = 0) -> Locator:
        """Run a cell; the form in its output."""
        return run_cell(page, index, ".af-root")

    def picture(self, form: Locator, name: str) -> None:
        """Keep a picture of a form."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        form.screenshot(path=PICTURES / f"{name}.png")


def run_cell(page: Page, index: int, inside: str) -> Locator:
    """Run a cell of the notebook in front; what matches the selector ``inside`` in its new output."""
    page.evaluate(
        """index => {
          const notebook = window.jupyterapp.shell.currentWidget.content;
          const old = notebook.widgets[index].node.querySelectorAll('.jp-OutputArea *');
          old.forEach(element => element.setAttribute('data-before', ''));
          notebook.activeCellIndex = index;
          window.jupyterapp.commands.execute('notebook:run-cell');
        }""",
        index,
    )
    found = page.locator(".jp-NotebookPanel:visible .jp-Cell").nth(index).locator(f"{inside}:not([data-before])")
    expect(found).to_be_visible(timeout=60_000)
    return found


def violations(page: Page, selector: str) -> list[Any]:
    """What axe finds wrong with a part of the page."""
    page.add_script_tag(path=AXE)
    found: list[Any] = page.evaluate(
        """async selector => (await axe.run(selector, {resultTypes: ['violations']})).violations
        .map(one => [one.id, one.nodes.map(node => node.html.slice(0, 200) + ' ' + (node.any[0]?.message ?? ''))])""",
        selector,
    )
    return found


@contextmanager
def running_lab(*, kernels: Sequence[tuple[str, Path]] = (), yaml: str = "") -> Iterator[Lab]:
    """JupyterLab over an empty home, with more kernels by name and interpreter, and settings of the run service."""
    folder = Path(tempfile.mkdtemp(prefix="atl-"))
    lab = Lab(folder / "work", folder / "a", _free_port())
    for made in (lab.work, lab.home):
        made.mkdir()
    (lab.home / "atelier.yaml").write_text(yaml)
    (lab.home / "envs").mkdir()
    (lab.home / "envs" / "platform.json").write_text(json.dumps({"python": sys.executable}))
    environ = _environ(folder, lab)
    for name, python in kernels:
        _write_kernel(folder, name, python)
    log = (folder / "lab.log").open("wb")
    process = subprocess.Popen(_command(folder, lab), env=environ, cwd=lab.work, stdout=log, stderr=log)
    try:
        _wait_until_it_answers(lab, process, folder / "lab.log")
        yield lab
    finally:
        process.terminate()
        process.wait(timeout=20)
        log.close()
        stop_service(lab.home)
        shutil.rmtree(folder, ignore_errors=True)


def start_service(lab: Lab) -> None:
    """Start the run service of this Lab's home, as the first submit would."""
    environ = _environ_of(lab)
    words = [sys.executable, "-m", "atelier", "runs", "--json"]
    subprocess.run(words, env=environ, cwd=lab.work, check=True, capture_output=True, timeout=60)


@contextmanager
def browser_page(browser: Browser, lab: Lab) -> Iterator[Page]:
    """A page whose console errors, failed requests and requests to elsewhere are noted in ``lab.troubles``."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    page = context.new_page()
    own = f"http://127.0.0.1:{lab.port}/"
    page.on("console", lambda message: _note(lab, message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: _note(lab, f"page error: {error} {error.stack}"))
    page.on(
        "response",
        lambda answer: lab.troubles.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None,
    )
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((own, own.replace("http", "ws"), "blob:", "data:"))
            else lab.troubles.append(f"a request to elsewhere: {request.url}")
        ),
    )
    yield page
    context.close()


def _note(lab: Lab, trouble: str) -> None:
    """Keep a trouble, but for what JupyterLab says of its own questions to a kernel that is restarted meanwhile."""
    if "Canceled future for" not in trouble:
        lab.troubles.append(trouble)


def _environ(folder: Path, lab: Lab) -> dict[str, str]:
    settings = folder / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    news = {"fetchNews": "false", "checkForUpdates": False}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(news))
    extensions = folder / "labextensions" / "@jupyterhub-atelier"
    extensions.mkdir(parents=True)
    if LABEXTENSION.is_dir():
        (extensions / "lab").symlink_to(LABEXTENSION)
    own = {
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
    }
    return _environ_of(lab) | own


def _environ_of(lab: Lab) -> dict[str, str]:
    """The environment of everything that belongs to a Lab."""
    own = {
        "HOME": str(lab.work),
        "ATELIER_HOME": str(lab.home),
        "ATELIER_IMAGE": "current",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "extensions"), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    return {name: value for name, value in os.environ.items() if not name.startswith("ATELIER_URL")} | own


def _command(folder: Path, lab: Lab) -> list[str]:
    options = [
        "--no-browser",
        "--ip=127.0.0.1",
        f"--port={lab.port}",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={TOKEN}",
        "--expose-app-in-browser",
        "--ServerApp.jpserver_extensions={'atelier.server': True}",
        "--ServerDocsApp.yroom_manager_class=atelier.server.rooms.Rooms",
        f"--LabApp.extra_labextensions_path={folder / 'labextensions'}",
        "--allow-root",
    ]
    return [sys.executable, "-m", "jupyterlab", *options]


def _write_kernel(folder: Path, name: str, python: Path) -> None:
    place = folder / "data" / "kernels" / name
    place.mkdir(parents=True)
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (place / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": name, "language": "python"}))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_it_answers(lab: Lab, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 40
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{lab.port}/api").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert process.poll() is None, f"JupyterLab ended: {log.read_text()[-3000:]}"
        assert time.monotonic() < deadline, f"JupyterLab did not answer in 40 s: {log.read_text()[-3000:]}"
        time.sleep(0.1)
