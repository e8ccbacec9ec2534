"""Previews of files that mean harm or are broken: each ends soon, within its budget, with words, not a traceback."""

from __future__ import annotations

import gzip
import json
import pickle
import struct
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pyarrow.parquet
import pytest

from atelier.data.previews import preview
from atelier.data.roots import home_root


class Boom:
    """Unpickling this would leave a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (Path.touch, (self.trace,))


def look(folder: Path, name: str, content: bytes, **wanted: Any) -> dict[str, Any]:
    (folder / name).write_bytes(content)
    tracemalloc.start()
    started = time.monotonic()
    shown = preview(home_root(folder), name, **wanted)
    assert time.monotonic() - started < 5
    assert tracemalloc.get_traced_memory()[1] < 300e6
    tracemalloc.stop()
    assert len(json.dumps(shown, allow_nan=False).encode()) < 5_000_000
    assert shown["bytes_read"] <= wanted.get("budget_bytes", 32_000_000)
    return shown


def parquet_bytes(folder: Path) -> bytes:
    pyarrow.parquet.write_table(pyarrow.table({"a": list(range(1000)), "b": ["x"] * 1000}), folder / "whole.parquet")
    return (folder / "whole.parquet").read_bytes()


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def test_an_image_bomb_is_not_unpacked(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 50_000_000)
    bomb = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")
    shown = look(tmp_path, "a.png", bomb)
    assert shown["image"] is None
    assert "too many for a preview" in shown["note"]


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    trace = tmp_path / "it ran"
    hostile = pickle.dumps(Boom(trace))
    for name in ("a.pkl", "model.pt", "a.joblib", "no-suffix", "a.txt", "a.npy"):
        shown = look(tmp_path, name, hostile)
        assert not trace.exists()
        assert shown["image"] is None
    assert "runs code when it is loaded" in look(tmp_path, "a.pkl", hostile)["note"]
    numpy.save(tmp_path / "b.npy", numpy.array([Boom(trace)], dtype=object), allow_pickle=True)
    shown = look(tmp_path, "b.npy", (tmp_path / "b.npy").read_bytes())
    assert "runs code when it is loaded" in shown["note"]
    assert not trace.exists()


def test_a_torch_zip_is_only_listed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Boom(tmp_path / "it ran")))
    shown = look(tmp_path, "model.pt", (tmp_path / "a.zip").read_bytes())
    assert shown["rows"][0][0] == "archive/data.pkl"
    assert "runs code" in shown["note"]
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize("depth", [2_000, 200_000])
def test_deep_json_does_not_end_the_process(tmp_path: Path, depth: int) -> None:
    deep = (b"[" * depth) + (b"]" * depth)
    for name in ("a.jsonl", "a.ipynb", "a.json"):
        shown = look(tmp_path, name, deep)
        first = shown["text"] or shown["rows"][0][0]  # Python 3.13 can still read what is 2,000 deep
        assert first.startswith("[[[")
    with_cells = b'{"cells": [{"cell_type": "code", "source": "x", "outputs": ' + deep + b"}]}"
    look(tmp_path, "b.ipynb", with_cells)


def test_a_notebook_of_gigabytes_is_shown_as_text(tmp_path: Path) -> None:
    with (tmp_path / "a.ipynb").open("wb") as file:
        file.write(b'{"cells": [')
        file.truncate(3_000_000_000)
    shown = preview(home_root(tmp_path), "a.ipynb", budget_bytes=512_000_000)
    assert shown["text"].startswith('{"cells": [')
    assert shown["bytes_read"] <= 300_000
    assert "too large" in shown["note"]


def test_a_huge_line_is_cut(tmp_path: Path) -> None:
    for name in ("a.csv", "a.jsonl", "a.txt"):
        shown = look(tmp_path, name, b"x" * 40_000_000)
        assert shown["text"] == "x" * 262_144
        assert shown["truncated"]
        assert shown["bytes_read"] <= 2**20 + 2**18


def test_a_csv_with_a_huge_field_or_very_many_columns(tmp_path: Path) -> None:
    shown = look(tmp_path, "a.csv", b"a,b\n" + b'"' + b"y" * 500_000 + b'",2\n')
    assert shown["text"] or len(shown["rows"][0][0]) <= 301
    shown = look(tmp_path, "b.csv", b",".join(b"c%d" % n for n in range(50_000)) + b"\n" + b"1," * 49_999 + b"1\n")
    assert len(shown["columns"]) == 100
    assert "50000 columns" in shown["note"]


def test_a_csv_with_nul_bytes(tmp_path: Path) -> None:
    shown = look(tmp_path, "a.csv", b"a,b\n1,\0\n2,x\n")
    assert "NUL" in shown["note"] or shown["kind"] == "binary"


@pytest.mark.parametrize(
    "text",
    [b'a,"b\n1,2\n', b'"\n' * 1000, b"\r\r\r\n", b",,,,\n,,\n", b"\xff\xfe", b"\n\n\n", b'"a""', b"a;b,c|d\te\n"],
)
def test_odd_csv_is_shown_somehow(tmp_path: Path, text: bytes) -> None:
    shown = look(tmp_path, "a.csv", text)
    assert shown["rows"] is not None or shown["text"] is not None


def test_latin1_text_and_csv(tmp_path: Path) -> None:
    assert "Café" in look(tmp_path, "a.txt", "Café ".encode("latin-1") * 10)["text"]
    assert look(tmp_path, "a.csv", "stadt,n\nKöln,1\n".encode("latin-1"))["rows"] == [["Köln", 1]]


@pytest.mark.parametrize("keep", [0, 3, 4, 11, 12, 100, -1, -4, -9, -200])
def test_a_truncated_parquet_is_said_to_be_broken(tmp_path: Path, keep: int) -> None:
    shown = look(tmp_path, "a.parquet", parquet_bytes(tmp_path)[:keep])
    assert shown["rows"] is None
    assert shown["note"] or shown["size_bytes"] == 0


def test_a_parquet_with_any_byte_changed_does_not_end_the_process(tmp_path: Path) -> None:
    whole = bytearray(parquet_bytes(tmp_path))
    for place in range(0, len(whole), 37):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        look(tmp_path, "a.parquet", bytes(broken))


def test_a_parquet_footer_longer_than_the_file(tmp_path: Path) -> None:
    shown = look(tmp_path, "a.parquet", b"PAR1" + b"x" * 100 + struct.pack("<I", 2**31) + b"PAR1")
    assert "longer than the file" in shown["note"]


def test_a_parquet_page_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    table = pyarrow.table({"a": numpy.zeros(40_000_000)})
    pyarrow.parquet.write_table(
        table, tmp_path / "bomb.parquet", compression="zstd", use_dictionary=False, data_page_size=2**30,
        row_group_size=40_000_000, write_batch_size=40_000_000, max_rows_per_page=40_000_000,
    )  # fmt: skip
    content = (tmp_path / "bomb.parquet").read_bytes()
    assert len(content) < 1_000_000
    shown = look(tmp_path, "a.parquet", content)
    assert shown["rows"] is None
    assert "unpacks to" in shown["note"]


def test_a_zip_named_parquet_says_so(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x.txt", "x")
    shown = look(tmp_path, "a.parquet", (tmp_path / "a.zip").read_bytes())
    assert (shown["kind"], shown["rows"]) == ("zip", [["x.txt", 1, 1]])
    assert "promises parquet" in shown["note"]


def test_a_gzip_bomb_is_unpacked_only_in_part(tmp_path: Path) -> None:
    shown = look(tmp_path, "a.txt.gz", gzip.compress(b"\x61" * 300_000_000, 1))
    assert len(shown["text"]) <= 2**20
    assert shown["truncated"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.safetensors", b"\xff" * 8),
        ("a.safetensors", struct.pack("<Q", 2) + b"[]"),
        ("a.safetensors", struct.pack("<Q", 30) + b'{"a": {"shape": [-1, "x"]}}   '),
        ("a.safetensors", b""),
        ("a.npy", b"\x93NUMPY\x01\x00\xff\xff{"),
        ("a.npy", b"\x93NUMPY"),
        ("a.npy", b"\x93NUMPY\x01\x00\x10\x00" + b"__import__('os')"),
        ("a.zip", b"PK\x03\x04" + b"\0" * 40),
        ("a.zip", b"PK\x05\x06" + b"\xff" * 18),
        ("a.zip", b"PK\x05\x06" + b"\0" * 18),
        ("a.csv.gz", b"\x1f\x8b\x08" + b"\xff" * 100),
        ("a.wav", b"RIFF\xff\xff\xff\xffWAVEfmt \xff\xff\xff\xff"),
        ("a.flac", b"fLaC"),
        ("a.png", b"\x89PNG\r\n\x1a\n"),
        ("a.jpg", b"\xff\xd8\xff\xe0" + b"\0" * 20),
        ("a.gif", b"GIF89a" + b"\xff" * 50),
        ("a.tiff", b"II*\x00" + b"\xff" * 50),
        ("a.png", b"<html>no image</html>"),
        ("a.ipynb", b"{}"),
        ("a.ipynb", b'{"cells": [1, null, {"source": 5, "outputs": [{"data": []}]}], "metadata": []}'),
        ("a.jsonl", b'{"a": NaN}\n{"a": 1e999}\n{"a": "\\ud800"}\n'),
        ("a.jsonl", b"1\n[2]\nnull\n"),
        ("a.bin", b""),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_broken_files_get_words(tmp_path: Path, name: str, content: bytes) -> None:
    shown = look(tmp_path, name, content)
    assert shown["size_bytes"] == len(content)
    assert "object at 0x" not in json.dumps(shown, default=str), "words of the library name an object of this process"
