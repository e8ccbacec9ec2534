"""People at browsers: a platform with the built images, and what one user's pages show, ask for and complain about."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx
import nbformat
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, Request, Response, expect

from atelier.local import processes
from atelier.wire import API
from tests.hub_driver import Person, Platform, running_platform, wait_for
from tests.service_driver import command_of, pids

SHOTS = Path(__file__).parent / ".shots"
AXE = Path(__file__).resolve().parents[2] / "lab" / "node_modules" / "axe-core" / "axe.min.js"
LAB_TIMEOUT_MS = 90_000
STEP_TIMEOUT_MS = 60_000
Theme = Literal["light", "dark"]


@contextmanager
def platform_with_images(folder: Path, *, yaml: str = "") -> Iterator[Platform]:
    """A platform whose images are those that `make test` has built, with settings of its own."""
    envs = Path(os.environ["ATELIER_TEST_HOME"]) / "envs"
    assert (envs / "pytorch.json").exists(), f"the images are not built: `make env ATELIER_HOME={envs.parent}`"
    home = Platform(folder).home
    home.mkdir(parents=True)
    (home / "envs").symlink_to(envs)
    if yaml:
        (home / "atelier.yaml").write_text(yaml)
    with running_platform(folder, images=()) as platform:
        yield platform
        _end_runs(platform)


def _end_runs(platform: Platform) -> None:
    """End the work of a test that failed in the middle, which goes on as it should, and let its agent tell of it.

    An agent that is ended is not the end: another one delivers for it, or the run comes again.
    """
    work, agent = f"ATELIER_RUN_DIR={platform.home}".encode(), f"atelier.agent\0{platform.home}".encode()
    processes.end(lambda: processes.marked(lambda entry: entry.startswith(work)), patience_s=2)
    wait_for("the agents to end", lambda: not [pid for pid in pids() if agent in command_of(pid)], timeout_s=15)


@dataclass
class Records:
    """What the run service says to one user, asked over the hub's proxy with a token of the hub."""

    http: httpx.Client

    @classmethod
    def of(cls, person: Person) -> Records:
        """A user's view, by a fresh token."""
        answer = person.api("POST", f"users/{person.name}/tokens", json={"note": "tests"})
        assert answer.status_code == 201, answer.text
        headers = {"Authorization": f"token {answer.json()['token']}"}
        client = httpx.Client(base_url=person.platform.url, headers=headers, timeout=30)
        person.platform.clients.append(client)
        return cls(client)

    def get(self, path: str) -> Any:
        """The JSON of a resource below the API's prefix."""
        answer = self.http.get(API + path)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    def content(self, path: str) -> bytes:
        """The bytes of a resource below the API's prefix."""
        answer = self.http.get(API + path)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        return answer.content

    def run(self, run_id: str) -> dict[str, Any]:
        """The whole record of a run."""
        record: dict[str, Any] = self.get(f"/runs/{run_id}")
        return record

    def newest_run(self) -> str:
        """The id of the run that was submitted last."""
        return str(self.get("/runs?limit=1")["items"][0]["id"])

    def log(self, run_id: str) -> str:
        """The log of the last attempt; all that is used here are short."""
        return str(self.get(f"/runs/{run_id}/log?offset=0&limit=1000000")["text"])

    def points(self, run_id: str, name: str) -> list[list[float]]:
        """All points of a metric."""
        points: list[list[float]] = self.get(f"/runs/{run_id}/metrics?name={name}&full=1")["points"]
        return points


@dataclass(frozen=True)
class Asked:
    """A request of a page."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: str | None


@dataclass
class Visitor:
    """One user at a browser with a profile of its own; ``troubles`` is what must stay empty."""

    platform: Platform
    name: str
    context: BrowserContext
    theme: Theme = "light"
    page: Page = field(init=False)
    troubles: list[str] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page = self.new_page()

    def new_page(self) -> Page:
        """Another tab, which is the one that is driven from now on."""
        self.page = self.context.new_page()
        self.page.set_default_timeout(STEP_TIMEOUT_MS)
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.troubles.append(f"page error: {error}"))
        self.page.on("response", self._answered)
        self.page.on("request", self._requested)
        self.page.on("download", lambda download: self.asked.append(Asked("GET", download.url, {}, None)))
        self.page.on("websocket", lambda socket: self.asked.append(Asked("GET", socket.url, {}, None)))
        return self.page

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.troubles.append(f"console: {message.text}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self.troubles.append(f"{response.status} {response.request.method} {response.url}")

    def _requested(self, request: Request) -> None:
        if request.url.startswith(("blob:", "data:")):
            return
        if not request.url.startswith(f"{self.platform.url}/"):
            self.troubles.append(f"a request to elsewhere: {request.url}")
        self.asked.append(Asked(request.method, request.url, dict(request.headers), request.post_data))

    # -- before JupyterLab ----------------------------------------------------------------------------------------
    def log_in(self) -> None:
        """Fill in the login page, and send it."""
        self.page.goto(self.platform.url)
        self.page.get_by_label("User name").fill(self.name)
        self.page.get_by_label("Password").fill(self.platform.site.secret("password"))
        self.page.get_by_role("button", name="Sign in").click()

    def start_lab(self, image: str = "PyTorch", machine: str = "cpu-small") -> None:
        """Pick, start, and wait for JupyterLab."""
        self.page.get_by_role("radio", name=image).check(force=True)
        self.page.get_by_role("radio", name=machine).check(force=True)
        self.page.get_by_role("button", name="Start").click()
        self.wait_for_lab()

    def come_back(self) -> None:
        """Open JupyterLab of a running server in the tab."""
        self.page.goto(f"{self.platform.url}/user/{self.name}/lab")
        self.wait_for_lab()

    def wait_for_lab(self) -> None:
        """JupyterLab with its workspace restored."""
        self.page.wait_for_function("() => window.jupyterapp", timeout=LAB_TIMEOUT_MS)
        self.page.evaluate("async () => { await window.jupyterapp.restored }")
        expect(self.page.locator("#jupyterlab-splash")).to_have_count(0)

    # -- notebooks ------------------------------------------------------------------------------------------------
    def do(self, command: str, **arguments: Any) -> None:
        """Have JupyterLab execute a command; nothing is waited for."""
        self.page.evaluate(
            "([name, given]) => { window.jupyterapp.commands.execute(name, given) }", [command, arguments]
        )

    def open(self, path: str) -> None:
        """A notebook in front, its kernel idle."""
        self.do("docmanager:open", path=path, factory="Notebook")
        self.page.wait_for_function(
            "path => window.jupyterapp.shell.currentWidget?.context?.path?.endsWith(path)", arg=path
        )
        expect(self.page.locator(".jp-NotebookPanel:visible .jp-CodeCell").first).to_be_visible()
        self.wait_until_idle()

    def wait_until_idle(self) -> None:
        """The kernel of the notebook in front has nothing to do."""
        self.page.wait_for_function(
            "() => window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'",
            timeout=LAB_TIMEOUT_MS,
        )

    def cell(self, index: int) -> Locator:
        """A cell of the notebook in front."""
        return self.page.locator(".jp-NotebookPanel:visible .jp-Cell").nth(index)

    def run_cell(self, index: int, source: str | None = None) -> Locator:
        """Run a cell, with another source when given; the cell."""
        self.page.evaluate(
            """([index, source]) => {
              const notebook = window.jupyterapp.shell.currentWidget.content;
              notebook.activeCellIndex = index;
              if (source !== null) notebook.activeCell.model.sharedModel.setSource(source);
              window.jupyterapp.commands.execute('notebook:run-cell');
            }""",
            [index, source],
        )
        return self.cell(index)

    def run_all(self) -> None:
        """Run the notebook in front, and wait until its last cell has a number; fail with the first error."""
        self.do("notebook:run-all-cells")
        self.page.wait_for_function(_ALL_RAN, timeout=180_000)
        assert (error := self.page.evaluate(_FIRST_ERROR)) is None, error

    def outputs(self) -> list[str]:
        """The text of all outputs of the notebook in front, seen or not."""
        found: list[str] = self.page.evaluate(_TEXTS)
        return found

    # -- looks ----------------------------------------------------------------------------------------------------
    def picture(self, name: str, part: Locator | None = None) -> None:
        """Keep a picture of the page, scrolled to a part of it."""
        SHOTS.mkdir(exist_ok=True)
        if part is not None:
            part.evaluate("node => node.scrollIntoView({block: 'start'})")
        self.page.screenshot(path=SHOTS / f"{name}-{self.theme}.png")

    def looks_well(self, name: str, part: Locator | None = None) -> None:
        """Keep a picture, and have axe find nothing wrong with a part of the page, or all of it."""
        self.picture(name, part)
        self.page.add_script_tag(path=AXE)
        violations = (part or self.page.locator("body")).evaluate(_AXE)
        assert violations == [], violations


_AXE = """async node => (await axe.run(node, {resultTypes: ['violations'], preload: false})).violations
  .map(one => [one.id, one.nodes.map(node => node.html.slice(0, 160) + ' ' + node.failureSummary)])"""
_CELLS = "[...window.jupyterapp.shell.currentWidget.content.widgets].filter(cell => cell.model.type === 'code')"
_ERRORS = f"{_CELLS}.flatMap(cell => cell.model.outputs.toJSON()).filter(output => output.output_type === 'error')"
_TEXTS = f"() => {_CELLS}.flatMap(cell => cell.model.outputs.toJSON()).map(one => [one.text ?? ''].flat().join(''))"
_FIRST_ERROR = f"() => {_ERRORS}.map(output => output.traceback.join('\\n'))[0] ?? null"
_ALL_RAN = f"""() => {_ERRORS}.length > 0
  || {_CELLS}.every(cell => cell.model.executionCount !== null && cell.model.executionState === 'idle')"""


@contextmanager
def visit(browser: Browser, platform: Platform, name: str = "ann", *, theme: Theme = "light") -> Iterator[Visitor]:
    """A user with a browser profile of their own."""
    expect.set_options(timeout=STEP_TIMEOUT_MS)
    size = {"width": 1280, "height": 900}
    context = browser.new_context(color_scheme=theme, viewport=size, accept_downloads=True)  # type: ignore[arg-type]
    yield Visitor(platform, name, context, theme)
    context.close()


def write_notebook(path: Path, *cells: str, parameters: str | None = None) -> None:
    """A notebook of code cells for the kernel of the picked image."""
    made = [nbformat.v4.new_code_cell(source) for source in cells]
    if parameters is not None:
        made.insert(0, nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    notebook = nbformat.v4.new_notebook(cells=made)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook))


def without(troubles: Sequence[str], *known: str) -> list[str]:
    """Troubles that hold none of these texts."""
    return [trouble for trouble in troubles if not any(text in trouble for text in known)]
