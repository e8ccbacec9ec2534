"""A measured row beside its peer, and the page that shows them."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

BEGIN, END = "<!-- measured by make bench -->", "<!-- end of measured -->"


@dataclass(frozen=True)
class Row:
    """One comparison, or without a ``peer`` one measurement.

    ``ours`` and ``peers`` are values of the same runs, taken in turns, in ``unit``; ``goal`` is in words, and ``holds``
    says whether it was reached.
    """

    name: str
    unit: str
    ours: Sequence[float]
    peer: str
    peers: Sequence[float]
    goal: str
    holds: bool
    note: str = ""

    def line(self) -> str:
        """The row as Markdown."""
        cells = (
            self.name,
            _spread(self.ours, self.unit),
            *self._beside(),
            self.goal,
            "yes" if self.holds else "**no**",
        )
        return f"| {' | '.join(cells)} |"

    def _beside(self) -> tuple[str, str]:
        if not self.peer:
            return "", ""
        ratio = statistics.median(self.ours) / statistics.median(self.peers)
        return f"{self.peer}: {_spread(self.peers, self.unit)}", f"{ratio:.2g} ×"

    def short_line(self) -> str:
        """The row as Markdown for a reader in a hurry."""
        cells = (self.name, _middle(self.ours, self.unit), f"{self.peer}: {_middle(self.peers, self.unit)}")
        return f"| {' | '.join(cells)} |"


def _middle(values: Sequence[float], unit: str) -> str:
    return f"{_short(statistics.median(values))} {unit}"


def _spread(values: Sequence[float], unit: str) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{_short(middle)} {unit}" if len(values) == 1 else f"{_short(middle)} {unit} ({_short(low)}–{_short(high)})"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def alternate(
    ours: Callable[[], float], peer: Callable[[], float], *, times: int, warm_up: int = 1
) -> tuple[list[float], list[float]]:
    """Values of both sides, measured in turns after ``warm_up`` discarded rounds."""
    pairs = [(ours(), peer()) for _ in range(times + warm_up)][warm_up:]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def page(rows: Sequence[Row]) -> str:
    """The whole page."""
    head = [
        "# Benchmarks",
        "",
        "Made by `make bench`, which installs the peers from their own lock and measures both sides in turns, in the",
        f"same run on the same machine ({_machine()}). A cell is the median (lowest–highest);",
        "machines are shared and noisy, so the ratio says more than the numbers.",
        "",
        "| what | Atelier | peer | ratio | goal | reached |",
        "|---|---|---|---|---|---|",
    ]
    notes = [f"- **{row.name}**: {row.note}" for row in rows if row.note]
    return "\n".join([*head, *(row.line() for row in rows), "", *notes]).rstrip() + "\n"


def _machine() -> str:
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    where = f"{os.cpu_count()} cores, {memory_gib:.0f} GiB, Python {platform.python_version()}, {platform.system()}"
    return f"{where}; {datetime.now(UTC):%Y-%m-%d}"


def summary(rows: Sequence[Row]) -> str:
    """The table that the README shows: medians only, of what has a peer."""
    head = [f"Medians of one `make bench` ({_machine()}):", "", "| what | Atelier | peer |", "|---|---|---|"]
    return "\n".join([*head, *(row.short_line() for row in rows if row.peer)]) + "\n"


def write(rows: Sequence[Row], *, path: Path, readme: Path) -> None:
    """Write the page, and the table between the marks in the README.

    Raises
    ------
    ValueError
        The README has not the two marks.
    """
    before, begin, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{readme} has no {BEGIN} … {END}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(rows), encoding="utf-8")
    readme.write_text(f"{before}{begin}\n{summary(rows)}{end}{after}", encoding="utf-8")
