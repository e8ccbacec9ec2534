"""The view of a run as a reader sees it, and what it must say by the service's record."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Locator, expect

from atelier.display.evidence import sentence, state_words
from atelier.display.text import percent
from tests.browser.page_driver import Records
from tests.hub_driver import wait_for

AGREE_TIMEOUT_S = 30
IN_SIGHT = 20
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class RunPane:
    """A drawn run, wherever it is."""

    root: Locator

    @property
    def id(self) -> str:
        return str(self.root.get_attribute("data-run"))

    def wait(self) -> RunPane:
        """Wait until it knows its run."""
        expect(self.root.get_by_test_id("atelier-run-state")).to_be_visible()
        return self

    def wait_for_state(self, word: str, *, timeout_s: float = 90) -> None:
        """Wait for a state in words."""
        expect(self.root.get_by_test_id("atelier-run-state")).to_have_text(word, timeout=timeout_s * 1000)

    def wait_for_lines(self, count: int, *, timeout_s: float = 90) -> None:
        """Wait until the log has so many lines."""
        wait_for(f"{count} lines of log", lambda: len(self.shown()["log"]) >= count, timeout_s=timeout_s)

    def wait_for_step(self, step: int, *, timeout_s: float = 60) -> None:
        """Wait until the curves have so many steps."""
        wait_for(f"step {step}", lambda: max(self.shown()["steps"], default=0) >= step, timeout_s=timeout_s)

    def open_tab(self, name: str) -> None:
        """Show another part."""
        self.root.get_by_role("tab", name=name).click()

    def shown(self) -> dict[str, Any]:
        """Everything that the first part and the head say, as text."""
        told: dict[str, Any] = self.root.evaluate(_READ)
        return told


_READ = r"""root => {
  const text = selector => root.querySelector(selector)?.innerText.replace(/\s+/g, ' ').trim() ?? null;
  const all = selector => [...root.querySelectorAll(selector)].map(node => node.innerText.replace(/\s+/g, ' ').trim());
  const charts = [...root.querySelectorAll('.at-plot')];
  return {
    state: text('[data-testid=atelier-run-state]'),
    name: text('.at-title-name'),
    meta: all('.at-meta > *').slice(0, 3),
    message: text('.at-message'),
    progress: text('.at-progress-text > span'),
    values: all('.at-key'),
    steps: charts.map(node => Number(node.getAttribute('aria-valuemax')) + 1),
    log: [...root.querySelectorAll('.at-line-text')].map(node => node.textContent.replace('\u200b', ''))
  };
}"""


def expected(records: Records, run_id: str) -> dict[str, Any]:
    """What the view must say, from the record, the metrics and the log."""
    run = records.run(run_id)
    metrics = records.get(f"/runs/{run_id}/metrics")["names"]
    groups: dict[str, set[float]] = {}
    for name, curve in metrics.items():
        if "/" not in name:
            groups.setdefault(name.removeprefix("test_"), set()).update(point[0] for point in curve["points"])
    return {
        "state": state_words(run),
        "name": run["name"],
        "meta": [run["id"], run["image"], run["machine"]],
        "message": sentence(run) or None,
        "progress": progress_words(run),
        "values": sorted(f"{name} {number_words(run['metrics'].get(name))}" for name in metrics if "/" not in name),
        "steps": sorted(len(steps) for steps in groups.values()),
        "log": COLOURS.sub("", records.log(run_id)).splitlines(),
    }


def number_words(value: float | None) -> str:
    """A number as the view writes it: four digits, powers of ten only where plain digits get long."""
    if value is None:
        return "not finite"
    if value and (abs(value) < 1e-3 or abs(value) >= 1e7):
        mantissa, _, power = f"{value:.2e}".partition("e")
        return f"{mantissa}e{int(power)}"
    return f"{value:.4g}"


def progress_words(run: dict[str, Any]) -> str | None:
    """The left half of the line below the bar; None when there is no bar."""
    progress = run["progress"]
    if run["state"] not in {"running", "starting"}:
        return None
    if progress is None:
        return "No progress told yet"
    done, total, unit = progress["done"], progress["total"], f" {progress['unit']}" if progress["unit"] else ""
    return f"{done:g}{unit} done" if not total else f"{percent(done, total)} % {done:g} of {total:g}{unit}"


def agree(pane: RunPane, records: Records, *, timeout_s: float = AGREE_TIMEOUT_S) -> dict[str, Any]:
    """Wait until the view says what the record says, before and after a look at it; what it says.

    The pane of the log holds only the lines in sight, which are the last ones.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        before = expected(records, pane.id)
        shown = pane.shown()
        after = expected(records, pane.id)
        told = {**shown, "values": sorted(shown["values"]), "steps": sorted(shown["steps"])}
        if len(shown["log"]) >= IN_SIGHT and after["log"][-len(shown["log"]) :] == shown["log"]:
            told["log"] = after["log"]
        if before == told == after:
            return told
        differs = {name: (told[name], after[name]) for name in told if told[name] != after[name]}
        assert time.monotonic() < deadline, f"shown and recorded differ after {timeout_s} s: {differs or before}"
        time.sleep(0.1)
