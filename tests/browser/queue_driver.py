"""The list of runs and the card of one, as a reader sees and uses them, and what they must say by the record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Locator, expect

from tests.browser.page_driver import Records
from tests.hub_driver import wait_for

WAITING = "/runs?state=queued&limit=100"
_CARD = r"""card => {
  const text = node => node?.innerText.replace(/\s+/g, ' ').trim() ?? '';
  const cells = [...card.querySelectorAll('.at-attempts tbody tr')].map(row => [...row.children].map(text));
  return {
    what: text(card.querySelector('.at-why-what')),
    next: text(card.querySelector('.at-why-next')),
    facts: Object.fromEntries([...card.querySelectorAll('.at-facts > div')].map(pair => [...pair.children].map(text))),
    attempts: cells.map(row => [Number(row[0]), row[row.length - 1]])
  };
}"""
_ROWS = r"""list => [...list.querySelectorAll('.at-row')].map(row => [
  row.querySelector('.at-link').innerText, row.querySelector('.at-cell-state').innerText.replace(/\s+/g, ' ').trim()
])"""


_PLACES = r"""(list, text) => [...list.querySelectorAll('.at-place')].map(place => {
  const node = place.firstChild, was = node.data;
  node.data = text || was;
  const box = place.getBoundingClientRect(), cell = place.closest('.at-cell-state');
  const isWhole = box.height < 2 * parseFloat(getComputedStyle(place).fontSize)
    && cell.scrollWidth <= cell.clientWidth && box.right <= cell.getBoundingClientRect().right;
  node.data = was;
  return [text || was, isWhole];
})"""


@dataclass(frozen=True)
class RunsPane:
    """A drawn list of runs, wherever it is."""

    root: Locator

    def rows(self) -> list[list[str]]:
        """Name and state of each run, from the top."""
        rows: list[list[str]] = self.root.evaluate(_ROWS)
        return rows

    def has_room_for_places(self, count: int) -> None:
        """Each place in the queue is one line, whole, and inside its row; also one of four digits."""
        for text in ("", "place 1234"):
            places = self.root.evaluate(_PLACES, text)
            assert len(places) == count, places
            assert all(is_whole for _, is_whole in places), places

    def menu(self, name: str) -> Locator:
        """The menu of a run's row, opened by keys; the first thing that can be done has the focus."""
        button = self.root.get_by_role("button", name=f"What can be done with {name}", exact=True)
        button.focus()
        button.press("Enter")
        menu = self.root.get_by_role("menu", name=name)
        expect(menu).to_be_visible()
        return menu

    def pick(self, name: str, item: str) -> None:
        """Walk with the arrow to an item of a run's menu, and take it."""
        menu = self.menu(name)
        wanted = menu.get_by_role("menuitem", name=item, exact=True)
        for _ in range(menu.get_by_role("menuitem").count()):
            if wanted.evaluate("item => item === document.activeElement"):
                break
            menu.press("ArrowDown")
        wanted.press("Enter")

    def agrees_on_the_queue(self, records: Records, *, names: list[str]) -> None:
        """The list and the service have the waiting runs in the same, expected order, each with its place."""

        def told() -> list[list[str]]:
            waiting = sorted(records.get(WAITING)["items"], key=lambda run: run["queue_position"])
            return [[run["name"], f"Waiting {_place(run['queue_position'])}"] for run in waiting]

        def agreed() -> bool:
            before = told()
            shown = [row for row in self.rows() if row[1].startswith("Waiting")]
            return [name for name, _ in before] == names and before == shown == told()

        try:
            wait_for("list and queue to agree", agreed)
        except AssertionError as problem:
            raise AssertionError(f"shown {self.rows()}, told {told()}, expected {names}") from problem


def _place(position: int) -> str:
    return "next" if position == 1 else f"place {position}"


def card_of(run: Locator) -> dict[str, Any]:
    """All that the card of a run says."""
    card = run.get_by_role("group", name="What happened")
    expect(card).to_be_visible()
    told: dict[str, Any] = card.evaluate(_CARD)
    return told


def agrees_with_record(run: Locator, record: dict[str, Any]) -> dict[str, Any]:
    """The card has the record's own sentence and next action, and each attempt's; what it says."""
    card = card_of(run)
    assert (card["what"], card["next"]) == (record["message"], record["hint"])
    attempts = [[one["n"], one["message"]] for one in reversed(record["attempts"])]
    assert card["attempts"] == (attempts if len(attempts) > 1 else [])
    return card
