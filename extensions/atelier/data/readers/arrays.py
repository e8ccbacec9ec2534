"""Files of arrays, by their header alone: NumPy's ``.npy`` and ``.safetensors``."""

from __future__ import annotations

import ast
import json
import math
import struct
from collections.abc import Mapping
from typing import Any

from atelier.data.readers.subject import Plan, Shown, Subject
from atelier.errors import RefusedInput

MAX_SAFETENSORS_HEADER_BYTES = 100_000_000
"""The limit of the format itself (safetensors, ``MAX_HEADER_SIZE``)."""

_NPY_HEADER_BYTES = 64 * 1024
_MAX_TENSORS = 500


def plan_npy(subject: Subject) -> Plan:
    """The header: at most 64 KiB."""
    length = min(subject.reader.size_bytes, _NPY_HEADER_BYTES)
    return Plan(length, "the header alone", lambda: _read_npy(subject.reader.at(0, length)))


def plan_safetensors(subject: Subject) -> Plan:
    """The header, whose length is the file's first eight bytes."""
    reader = subject.reader
    if reader.size_bytes < 8:
        raise _broken("it is too short")
    length = int(struct.unpack("<Q", reader.at(0, 8))[0])
    if length > min(reader.size_bytes - 8, MAX_SAFETENSORS_HEADER_BYTES):
        raise _broken("its header claims to be longer than the file")
    return Plan(length, "the header alone", lambda: _read_safetensors(reader.at(8, length)))


def _broken(why: str) -> RefusedInput:
    return RefusedInput("broken_file", f"The file can't be read as arrays: {why}.", hint="Write it again.")


def _read_npy(head: bytes) -> Shown:
    """The header is a Python literal (numpy's format description, NEP 1): parsed as one, never evaluated."""
    wide = head[6:7] > b"\x01"
    start = 12 if wide else 10
    if len(head) < start:
        raise _broken("it is too short")
    length = struct.unpack("<I" if wide else "<H", head[8:start])[0]
    try:
        header = ast.literal_eval(head[start : start + length].decode("latin-1").strip())
        dtype, shape, fortran = header["descr"], tuple(header["shape"]), bool(header["fortran_order"])
    except (ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError) as problem:
        raise _broken("its header is not NumPy's") from problem
    facts = {
        "dtype": str(dtype)[:500],
        "shape": " × ".join(map(str, shape)) or "a single value",
        "order": "Fortran" if fortran else "C",
    }
    if "O" in str(dtype):
        return Shown(
            facts=facts,
            note="It holds pickled objects. A pickle runs code when it is loaded, so a preview never loads it.",
        )
    return Shown(facts=facts)


def _read_safetensors(content: bytes) -> Shown:
    try:
        header = json.loads(content)
    except (ValueError, RecursionError) as problem:
        raise _broken("its header is not JSON") from problem
    if not isinstance(header, Mapping):
        raise _broken("its header is not a map")
    tensors = [
        (str(name), entry) for name, entry in header.items() if name != "__metadata__" and isinstance(entry, Mapping)
    ]
    rows = [_tensor(name, entry) for name, entry in tensors[:_MAX_TENSORS]]
    columns = [
        {"name": "tensor", "type": "text"},
        {"name": "dtype", "type": "text"},
        {"name": "shape", "type": "text"},
        {"name": "bytes", "type": "int"},
    ]
    parameters = sum(math.prod(shape) for _, entry in tensors if (shape := _shape(entry)) is not None)
    facts: dict[str, Any] = {"tensors": len(tensors), "values": parameters}
    if isinstance(header.get("__metadata__"), Mapping):
        facts |= {str(key)[:50]: str(value)[:200] for key, value in list(header["__metadata__"].items())[:20]}
    return Shown(columns=columns, rows=rows, total_rows=len(tensors), truncated=len(tensors) > len(rows), facts=facts)


def _tensor(name: str, entry: Mapping[str, Any]) -> list[Any]:
    shape, places = _shape(entry), entry.get("data_offsets")
    fits = isinstance(places, list) and len(places) == 2 and all(isinstance(place, int) for place in places)
    size_bytes = places[1] - places[0] if fits and isinstance(places, list) else None
    return [name[:200], str(entry.get("dtype"))[:20], " × ".join(map(str, shape or ())) or "a single value", size_bytes]


def _shape(entry: Mapping[str, Any]) -> list[int] | None:
    shape = entry.get("shape")
    fits = (
        isinstance(shape, list)
        and len(shape) <= 64
        and all(isinstance(side, int) and 0 <= side < 2**48 for side in shape)
    )
    return shape if fits else None
