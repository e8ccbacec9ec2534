"""Amounts as people write them ("4Gi", "500m", "2h") to numbers and back; the only unit arithmetic of the project."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from decimal import Decimal

from atelier.errors import RefusedInput

_BYTES = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "P": 10**15,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "Pi": 2**50,
}
MOST_BYTES = 2**63 - 1
"""The most that a database can note."""

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_NUMBER_AND_UNIT = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


def parse_bytes(text: str | int) -> int:
    """Bytes of a Kubernetes quantity: ``"4Gi"`` → 4294967296, ``"100M"`` → 100000000, ``512`` → 512."""
    match = _NUMBER_AND_UNIT.fullmatch(str(text).strip())
    size_bytes = int(Decimal(match[1]) * _BYTES[match[2]]) if match is not None and match[2] in _BYTES else None
    if size_bytes is None or size_bytes > MOST_BYTES:
        shown = repr(text)[:80]
        raise RefusedInput(
            "bad_quantity", f"{shown} is not an amount of memory.", hint="Write a number and a unit, as 512Mi or 4Gi."
        )
    return size_bytes


def format_bytes(size_bytes: int) -> str:
    """A short text with a binary unit: 4294967296 → ``"4 GiB"``, 1536 → ``"1.5 KiB"``."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size) < 1024 or unit == "TiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if size >= 100 or size == int(size) else f"{size:.1f} {unit}"


def parse_cpu(text: str | float) -> float:
    """Cores of a Kubernetes CPU quantity: ``"500m"`` → 0.5, ``2`` → 2.0."""
    match = _NUMBER_AND_UNIT.fullmatch(str(text).strip())
    cores = float(match[1]) / (1000 if match[2] == "m" else 1) if match and match[2] in {"", "m"} else math.inf
    if not math.isfinite(cores):
        shown = repr(text)[:80]
        raise RefusedInput("bad_quantity", f"{shown} is not an amount of CPU.", hint="Write cores, as 2 or 500m.")
    return cores


def parse_duration(text: str | float) -> float:
    """Seconds of ``"90s"``, ``"2h"``, ``"1h30m"`` or a plain number of seconds."""
    plain = str(text).strip()
    plain = f"{plain}s" if re.fullmatch(r"\d+(?:\.\d+)?", plain) else plain
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(ms|[smhdw])", plain)
    is_whole = bool(parts) and re.sub(r"\s", "", plain) == "".join(number + unit for number, unit in parts)
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts) if is_whole else math.inf
    if not math.isfinite(seconds):
        shown = repr(text)[:80]
        raise RefusedInput(
            "bad_quantity", f"{shown} is not a length of time.", hint="Write a number and a unit, as 90s, 2h or 1d."
        )
    return seconds


def format_duration(seconds: float) -> str:
    """A short text with the two largest units: 3725 → ``"1 h 2 min"``, 0.42 → ``"0.4 s"``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    for unit_s, unit, part_s, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit_s:
            rest = whole % unit_s // part_s
            return f"{whole // unit_s} {unit}" + (f" {rest} {part}" if rest else "")
    raise AssertionError("unreachable: whole >= 60")


def utcnow() -> datetime:
    """The present moment, aware, in UTC."""
    return datetime.now(UTC)
