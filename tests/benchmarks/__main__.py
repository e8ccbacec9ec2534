"""Measures Atelier beside its peers, for the README and its page: ``python -m tests.benchmarks [ROW …]``."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks import data_rows, load_rows, run_rows, small_rows
from tests.benchmarks.report import page, write
from tests.benchmarks.sides import Sides
from tools.plan import ROOT

ROWS = {**small_rows.ROWS, **run_rows.ROWS, **data_rows.ROWS, **load_rows.ROWS}


def main(names: Sequence[str]) -> int:
    """Measure the named rows, or all; only all of them are written to the page. 1 when a goal was missed."""
    unknown = set(names) - set(ROWS)
    if unknown:
        print(f"There is no row {', '.join(sorted(unknown))}. Known: {', '.join(ROWS)}.", file=sys.stderr)
        return 2
    rows = []
    with tempfile.TemporaryDirectory(prefix="atl-") as folder, Sides(Path(folder)) as sides:
        for name in names or ROWS:
            print(f"measuring {name} …", flush=True)
            rows += ROWS[name](sides)
    print(page(rows))
    if not names:
        write(rows, path=ROOT / "docs/benchmarks.md", readme=ROOT / "README.md")
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
