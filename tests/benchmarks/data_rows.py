"""Rows about data: a page of a huge folder, a look into a huge parquet file."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.report import Row, alternate
from tests.benchmarks.sides import Sides
from tests.benchmarks.works import timed

FILES = 100_000
ROWS_OF_TABLE = 2_000_000
COLUMNS = 21


def listing(sides: Sides) -> list[Row]:
    """The first page of a folder of 100,000 files, by HTTP, beside the Contents API."""
    for home in ("ours-home", "peer-home"):
        _fill(sides.place(home) / "many")
    path = "/atelier/api/v1/roots/home/list"
    sides.our_server.get(path, path="many", limit=100)
    ours, peers = alternate(
        lambda: timed(lambda: sides.our_server.get(path, path="many", limit=100)),
        lambda: timed(lambda: sides.peer_server.get("/api/contents/many")),
        times=3,
        warm_up=0,
    )
    name = f"first page of a folder of {FILES:,} files"
    return [Row(name, "s", ours, "Contents API", peers, "≤ 0.1 s", statistics.median(ours) <= 0.1)]


def _fill(folder: Path) -> None:
    if not folder.exists():
        folder.mkdir()
        for number in range(FILES):
            (folder / f"image-{number:06d}.txt").touch()


_TABLE = f"""
import sys, numpy, pyarrow, pyarrow.parquet
rng = numpy.random.default_rng(0)
table = pyarrow.table({{f"x{{i}}": rng.standard_normal({ROWS_OF_TABLE}) for i in range({COLUMNS})}})
pyarrow.parquet.write_table(table, sys.argv[1], row_group_size=1_000_000)
"""
_PEER = """
import sys, pyarrow.parquet
with pyarrow.parquet.ParquetFile(sys.argv[1]) as file:
    next(file.iter_batches(50))
"""
_OURS = """
import sys, pathlib
from atelier.data import previews, roots
path = pathlib.Path(sys.argv[1])
shown = previews.preview(roots.home_root(path.parent), path.name, rows=50)
assert len(shown["rows"]) == 50, shown["note"]
"""
_COUNT = """
print(next(line.split()[1] for line in open("/proc/self/io") if line.startswith("rchar")))
"""


def parquet(sides: Sides) -> list[Row]:
    """Bytes read for 50 rows of a parquet file with row groups of 1,000,000 rows, as the kernel counts them."""
    table = sides.place("parquet") / "table.parquet"
    subprocess.run([sides.python, "-c", _TABLE, table], check=True)
    ours, peers = alternate(
        lambda: _read_mb(sys.executable, _OURS, table), lambda: _read_mb(sides.python, _PEER, table), times=3, warm_up=0
    )
    note = f"the file has {table.stat().st_size / 1e6:.0f} MB, {ROWS_OF_TABLE:,} rows and {COLUMNS} columns."
    row = Row(
        "preview of 50 parquet rows", "MB", ours, "pyarrow `iter_batches(50)`", peers, "≤ 32 MB", max(ours) <= 32, note
    )
    table.unlink()
    return [row]


def _read_mb(python: str | Path, code: str, table: Path) -> float:
    """Megabytes that a process reads for the table, over what it reads to start with the same imports."""
    imports = "\n".join(line for line in code.splitlines() if "import" in line)
    idle, whole = (
        int(subprocess.run([python, "-c", source + _COUNT, table], check=True, capture_output=True, text=True).stdout)
        for source in (imports, code)
    )
    return (whole - idle) / 1e6


ROWS = {"listing": listing, "parquet": parquet}
