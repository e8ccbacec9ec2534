"""Previews of well-formed files of every kind: what is shown, what it cost, and when the budget is kept instead."""

from __future__ import annotations

import base64
import datetime
import decimal
import gzip
import io
import json
import struct
import wave
import zipfile
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from atelier.data.previews import plan, preview
from atelier.data.roots import home_root
from atelier.errors import RefusedInput


def look(folder: Path, name: str, content: bytes | str | None = None, **wanted: Any) -> dict[str, Any]:
    """A preview; its JSON must be strict, and it may read no more than its plan says."""
    if content is not None:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    shown = preview(home_root(folder), name, **wanted)
    json.dumps(shown, allow_nan=False)
    planned = plan(home_root(folder), name, **wanted)
    assert planned["plan"] == shown["plan"]
    assert shown["bytes_read"] <= shown["plan"]["bytes_to_read"]
    return shown


def png(width: int, height: int, mode: str = "RGB") -> bytes:
    content = io.BytesIO()
    Image.new(mode, (width, height)).save(content, "PNG")
    return content.getvalue()


def test_text_shows_its_head_and_encoding(tmp_path: Path) -> None:
    shown = look(tmp_path, "a.md", "# Grüße\n" * 100_000)
    assert shown["kind"] == "text"
    assert len(shown["text"]) < 256 * 1024
    assert (shown["facts"]["encoding"], shown["truncated"]) == ("utf-8", True)
    assert shown["bytes_read"] <= 256 * 1024


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("Grüße".encode(), "utf-8"),
        ("Grüße".encode("latin-1"), "cp1252"),
        ("Grüße aus Köln".encode("utf-16"), "utf-16"),
        ("Grüße aus Köln".encode("utf-16-le"), "utf-16-le"),
        ("Grüße".encode("utf-8-sig"), "utf-8"),
    ],
)
def test_encodings_are_recognised(tmp_path: Path, content: bytes, encoding: str) -> None:
    shown = look(tmp_path, "a.txt", content)
    assert shown["text"].startswith("Grüße")
    assert shown["facts"]["encoding"] == encoding


def test_a_letter_cut_by_the_block_does_not_make_the_text_another_encoding(tmp_path: Path) -> None:
    shown = look(tmp_path, "a.txt", "x" + "ü" * 200_000)
    assert shown["facts"]["encoding"] == "utf-8"
    assert "\ufffd" not in shown["text"]


def test_csv_has_types_and_its_last_partial_line_is_dropped(tmp_path: Path) -> None:
    lines = ["id;price;when;ok;name", *(f"{n};{n / 4};2026-01-02;true;Jo, {n}" for n in range(60_000))]
    shown = look(tmp_path, "a.csv", "\n".join(lines), rows=1000)
    assert [column["type"] for column in shown["columns"]] == ["int", "float", "date", "bool", "text"]
    assert shown["rows"][3] == [3, 0.75, "2026-01-02", True, "Jo, 3"]
    assert shown["bytes_read"] <= 2**20
    assert (len(shown["rows"]), shown["truncated"], shown["total_rows"]) == (1000, True, None)


def test_csv_quotes_hold_separators_and_line_ends(tmp_path: Path) -> None:
    shown = look(tmp_path, "a.csv", 'a,b\n"x, y","two\nlines"\n"say ""hi""",\n')
    assert shown["rows"] == [["x, y", "two\nlines"], ['say "hi"', None]]
    assert shown["total_rows"] == 2


def test_a_csv_without_header_keeps_its_first_row(tmp_path: Path) -> None:
    shown = look(tmp_path, "a.csv", "1,2\n3,4\n")
    assert [column["name"] for column in shown["columns"]] == ["column 1", "column 2"]
    assert shown["rows"] == [[1, 2], [3, 4]]


def test_tsv_and_gzip(tmp_path: Path) -> None:
    assert look(tmp_path, "a.tsv", "a\tb\n1\tx, y\n")["rows"] == [[1, "x, y"]]
    shown = look(tmp_path, "a.csv.gz", gzip.compress(b"a,b\n1,2\n"))
    assert (shown["kind"], shown["rows"]) == ("csv", [[1, 2]])


def test_jsonl_joins_the_keys_of_its_rows(tmp_path: Path) -> None:
    rows = [{"a": 1, "b": [1, 2]}, {"a": 2.5, "c": {"d": None}}]
    shown = look(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert [(column["name"], column["type"]) for column in shown["columns"]] == [
        ("a", "float"),
        ("b", "list"),
        ("c", "map"),
    ]
    assert shown["rows"] == [[1, "[1, 2]", None], [2.5, None, '{"d": null}']]


def test_parquet_values_become_json(tmp_path: Path) -> None:
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    table = pyarrow.table(
        {
            "float": [1.5, float("nan"), float("inf"), -float("inf"), None],
            "big": pyarrow.array([2**60, 1, 2, 3, None], pyarrow.int64()),
            "decimal": [decimal.Decimal("1.10")] * 5,
            "when": [moment] * 5,
            "day": [datetime.date(2026, 1, 2)] * 5,
            "bytes": [b"\x00\xff" * 20] * 5,
            "list": [[1.0, float("nan")]] * 5,
            "far": pyarrow.array([2**62] * 5, pyarrow.timestamp("us")),
            "nanos": pyarrow.array([1] * 5, pyarrow.timestamp("ns")),
            "took": pyarrow.array([1] * 5, pyarrow.duration("ns")),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    shown = look(tmp_path, "a.parquet")
    columns = dict(zip([column["name"] for column in shown["columns"]], zip(*shown["rows"], strict=True), strict=True))
    assert columns["float"] == (1.5, "NaN", "Infinity", "-Infinity", None)
    assert columns["big"][0] == str(2**60)
    assert columns["decimal"][0] == "1.10"
    assert columns["when"][0] == "2026-01-02T03:04:05+00:00"
    assert columns["bytes"][0].startswith("40 bytes: 00 ff")
    assert columns["list"][0] == '[1.0, "NaN"]'
    assert columns["far"][0]
    assert columns["took"][0]


def test_parquet_of_million_row_groups_reads_less_than_32_mb(tmp_path: Path) -> None:
    """The issue's own limit, on a file that pyarrow's defaults read most of."""
    random, count = numpy.random.default_rng(0), 1_000_000
    columns = {f"float{n}": random.normal(size=count) for n in range(12)}
    columns |= {f"int{n}": random.integers(0, 10**9, count) for n in range(9)}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "big.parquet", row_group_size=count)
    shown = look(tmp_path, "big.parquet")
    assert (len(shown["rows"]), len(shown["columns"]), shown["total_rows"]) == (50, 20, count)
    assert shown["bytes_read"] <= 32_000_000
    assert shown["size_bytes"] > 100_000_000
    assert "20 of 21 columns" in shown["note"]


def test_parquet_over_budget_shows_fewer_columns_then_only_metadata(tmp_path: Path) -> None:
    random = numpy.random.default_rng(0)
    table = pyarrow.table({f"c{n}": random.normal(size=300_000) for n in range(4)})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    fewer = look(tmp_path, "a.parquet", budget_bytes=2_500_000)
    assert [column["name"] for column in fewer["columns"]] == ["c0", "c1"]
    assert fewer["bytes_read"] <= 2_500_000
    none = look(tmp_path, "a.parquet", budget_bytes=200_000)
    assert none["rows"] is None
    assert none["columns"]
    assert (none["total_rows"], none["plan"]["within_budget"]) == (300_000, False)
    asked = look(tmp_path, "a.parquet", budget_bytes=none["plan"]["bytes_to_read"])
    assert len(asked["rows"]) == 50


def test_parquet_columns_can_be_chosen(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"a": [1], "b.c": [2], "d": [{"e": 3}]}), tmp_path / "a.parquet")
    assert look(tmp_path, "a.parquet", columns=["b.c", "d"])["rows"] == [[2, '{"e": 3}']]
    with pytest.raises(RefusedInput) as refused:
        preview(home_root(tmp_path), "a.parquet", columns=["x"])
    assert refused.value.code == "unknown_column"
    assert refused.value.detail["known"] == ["a", "b.c", "d"]


def test_an_empty_table_has_columns_and_no_rows(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"a": pyarrow.array([], pyarrow.int32())}), tmp_path / "a.parquet")
    shown = look(tmp_path, "a.parquet")
    assert (shown["columns"], shown["rows"], shown["total_rows"]) == ([{"name": "a", "type": "int32"}], [], 0)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK", "I;16", "F", "1", "LA"])
def test_images_of_every_mode_become_a_png(tmp_path: Path, mode: str) -> None:
    suffix = "tiff" if mode in {"CMYK", "F", "I;16"} else "png"
    Image.new(mode, (1200, 300)).save(tmp_path / f"a.{suffix}")
    shown = look(tmp_path, f"a.{suffix}")
    thumbnail = Image.open(io.BytesIO(base64.b64decode(shown["image"]["png_base64"])))
    assert (thumbnail.format, thumbnail.size) == ("PNG", (512, 128))
    assert (shown["image"]["width"], shown["image"]["height"]) == (1200, 300)


def test_an_image_over_budget_tells_its_size_and_cost(tmp_path: Path) -> None:
    content = png(100, 100) + b"\0" * 500_000
    shown = look(tmp_path, "a.png", content, budget_bytes=300_000)
    assert shown["image"] is None
    assert (shown["facts"]["width"], shown["plan"]["bytes_to_read"]) == (100, len(content))
    assert look(tmp_path, "a.png", budget_bytes=1_000_000)["image"]


def test_a_notebook_shows_sources_and_text_outputs(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": ["# A\n", "b"]},
        {
            "cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": "x = 1", "execution_count": 1,
            "outputs": [
                {"output_type": "stream", "name": "stdout", "text": ["hi\n"]},
                {"output_type": "display_data", "data": {"image/png": "AAAA", "text/plain": "<Fig>"}, "metadata": {}},
                {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": []},
            ],
        },
    ]  # fmt: skip
    shown = look(tmp_path, "a.ipynb", json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    assert [cell["source"] for cell in shown["cells"]] == ["# A\nb", "x = 1"]
    assert shown["cells"][1]["tags"] == ["parameters"]
    assert shown["cells"][1]["output"] == "hi\n[image/png]\nValueError: no\n"


def test_arrays_are_shown_by_their_header_alone(tmp_path: Path) -> None:
    numpy.save(tmp_path / "a.npy", numpy.zeros((1000, 300), numpy.float32))
    shown = look(tmp_path, "a.npy")
    assert (shown["facts"]["dtype"], shown["facts"]["shape"]) == ("<f4", "1000 × 300")
    assert shown["bytes_read"] <= 65536
    header = json.dumps(
        {"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {"format": "pt"}}
    )
    shown = look(tmp_path, "a.safetensors", struct.pack("<Q", len(header)) + header.encode() + b"\0" * 24)
    assert shown["rows"] == [["w", "F32", "2 × 3", 24]]
    assert shown["facts"] == {"tensors": 1, "values": 6, "format": "pt"}


def test_sound_is_shown_by_its_header(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setnchannels(2)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes(b"\0" * 64_000)
    shown = look(tmp_path, "a.wav")
    assert shown["facts"] == {"codec": "PCM", "channels": 2, "rate_hz": 16000, "bits": 16, "length_s": 1.0}


def test_a_zip_lists_its_files(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x/y.txt", "hello")
    shown = look(tmp_path, "a.zip")
    assert shown["rows"] == [["x/y.txt", 5, 5]]


def test_unknown_bytes_are_shown_as_numbers(tmp_path: Path) -> None:
    shown = look(tmp_path, "a.bin", bytes(range(256)) * 4)
    assert (shown["kind"], shown["truncated"]) == ("binary", True)
    assert (
        shown["text"].splitlines()[4] == "00000040  40 41 42 43 44 45 46 47 48 49 4a 4b 4c 4d 4e 4f  @ABCDEFGHIJKLMNO"
    )


def test_html_and_svg_are_text(tmp_path: Path) -> None:
    for name in ("a.html", "a.svg"):
        shown = look(tmp_path, name, "<svg onload=alert(1)></svg>")
        assert (shown["kind"], shown["image"]) == ("text", None)


@pytest.mark.parametrize(
    ("wanted", "code"), [({"rows": 0}, "bad_rows"), ({"rows": 1001}, "bad_rows"), ({"budget_bytes": 0}, "bad_budget")]
)
def test_senseless_wishes_are_refused(tmp_path: Path, wanted: dict[str, int], code: str) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(RefusedInput) as refused:
        preview(home_root(tmp_path), "a.txt", **wanted)
    assert refused.value.code == code


def test_no_time_left_shows_metadata_only(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * 10_000)
    shown = preview(home_root(tmp_path), "a.txt", budget_s=1e-9)
    assert shown["text"] is None
    assert "took longer than" in shown["note"]
    assert shown["size_bytes"] == 10_000
