"""Which other files an ONNX file needs, read from its protobuf: the platform has no library ``onnx``."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from atelier.errors import RefusedInput

# Field numbers of onnx.proto3: ModelProto.graph, GraphProto.initializer, TensorProto.external_data, and key and value
# of its StringStringEntryProto.
_GRAPH, _INITIALIZER, _EXTERNAL_DATA, _KEY, _VALUE = 7, 5, 13, 1, 2
_FIXED_BYTES = {1: 8, 5: 4}

Span = tuple[int, int]


def external_files(path: Path) -> set[str]:
    """Names, relative to the file's folder, of the files that hold its weights; empty when it holds all itself.

    Raises
    ------
    RefusedInput
        ``not_onnx``: the bytes are no protobuf message.
    """
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return set(_locations(data))
    except (IndexError, KeyError, ValueError) as problem:
        raise RefusedInput("not_onnx", f"{path.name} is no ONNX file.", hint="Export the model again.") from problem


def _locations(data: mmap.mmap) -> Iterator[str]:
    for graph in _within(data, (0, len(data)), _GRAPH):
        for tensor in _within(data, graph, _INITIALIZER):
            for entry in _within(data, tensor, _EXTERNAL_DATA):
                if _text(data, entry, _KEY) == "location":
                    yield _text(data, entry, _VALUE)


def _text(data: mmap.mmap, entry: Span, field: int) -> str:
    return b"".join(data[start:end] for start, end in _within(data, entry, field)).decode()


def _within(data: mmap.mmap, span: Span, wanted: int) -> Iterator[Span]:
    """Where the messages and strings of one field lie; the others are passed over without being read."""
    at, end = span
    while at < end:
        tag, at = _number(data, at)
        field, kind = tag >> 3, tag & 7
        if kind == 0:
            _, at = _number(data, at)
        elif kind == 2:
            size, at = _number(data, at)
            if at + size > end:
                raise IndexError(f"a field of {size} bytes at {at} ends after {end}")
            if field == wanted:
                yield at, at + size
            at += size
        else:
            at += _FIXED_BYTES[kind]


def _number(data: mmap.mmap, at: int) -> tuple[int, int]:
    """A variable-length number, and where the next thing begins."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise IndexError(f"no number at {at}")
