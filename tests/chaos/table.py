"""Runs the suite and shows what became of each fault: ``python -m tests.chaos.table [short]``, by default all of it.

The table goes into ``docs/reliability.md``, between its marks, when every test has passed.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.chaos.mortal import ROWS, Row

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/reliability.md"
BEGIN, END = "<!-- measured by make chaos -->", "<!-- end of measured -->"
PYTEST = [sys.executable, "-m", "pytest", "tests/chaos", "--numprocesses=2", "--dist=worksteal"]


def rows_in(file: Path) -> list[Row]:
    """What the tests have noted, the places of crashes last; of a fault that needed several runs the last one."""
    told = [Row(**json.loads(line)) for line in (file.read_text().splitlines() if file.exists() else [])]
    newest = {row.fault: row for row in told if row.fault != "none"}
    return sorted(newest.values(), key=lambda row: (row.fault.startswith("killed at"), row.fault))


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| fault | final state | reason | attempts | what is there | s |", "|---|---|---|---|---|---|"]
    for row in rows:
        cells = (row.fault, row.state, row.reason or "—", str(row.attempts), row.whole, f"{row.took_s:.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def written(page: str, rows: Sequence[Row], form: str) -> str:
    """The page with the table of now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    where = f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}"
    words = f"The {form} form, {len(rows)} rows ({where}; {datetime.now(UTC):%Y-%m-%d}):"
    return f"{before}{BEGIN}\n{words}\n\n{table(rows)}\n{END}{after}"


def main(argv: Sequence[str]) -> int:
    """Run the suite; the exit code of pytest."""
    form = argv[0] if argv else "full"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows"
        environ = os.environ | {ROWS: str(file), "ATELIER_CHAOS": form}
        status = subprocess.run(PYTEST, cwd=ROOT, env=environ, check=False).returncode
        rows = rows_in(file)
    print(table(rows))
    if status == 0:
        PAGE.write_text(written(PAGE.read_text(), rows, form))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
