"""What a preview can say of sound and of unknown bytes: the header's numbers, and a hex head."""

from __future__ import annotations

import struct
from typing import Any

from atelier.data.readers.subject import Plan, Shown, Subject

_HEX_BYTES = 512
_HEADER_BYTES = 64 * 1024
_CODECS = {1: "PCM", 3: "float", 6: "A-law", 7: "mu-law", 0xFFFE: "extensible"}


def plan_audio(subject: Subject) -> Plan:
    """The header: at most 64 KiB."""
    length = min(subject.reader.size_bytes, _HEADER_BYTES)
    return Plan(
        length, "the header alone", lambda: _read_audio(subject.reader.at(0, length), subject.reader.size_bytes)
    )


def plan_binary(subject: Subject) -> Plan:
    """The first 512 bytes as hexadecimal numbers and letters."""
    length = min(subject.reader.size_bytes, _HEX_BYTES)
    more = subject.cut or length < subject.reader.size_bytes
    return Plan(length, "the first bytes", lambda: Shown(text=hex_lines(subject.reader.at(0, length)), truncated=more))


def hex_lines(content: bytes) -> str:
    """Sixteen bytes a line: offset, hexadecimal, and the letters that ASCII has for them."""
    lines = []
    for offset in range(0, len(content), 16):
        part = content[offset : offset + 16]
        letters = "".join(chr(byte) if 32 <= byte < 127 else "·" for byte in part)
        lines.append(f"{offset:08x}  {part.hex(' '):<47}  {letters}")
    return "\n".join(lines)


def _read_audio(head: bytes, size_bytes: int) -> Shown:
    facts = _wav(head, size_bytes) if head[:4] == b"RIFF" else _flac(head) if head[:4] == b"fLaC" else {}
    note = "" if facts else "Only WAV and FLAC headers are read."
    return Shown(facts=facts, note=note)


def _wav(head: bytes, size_bytes: int) -> dict[str, Any]:
    """Channels, rate and length from the ``fmt`` and ``data`` chunks (Microsoft's RIFF description)."""
    position, facts, bytes_per_s = 12, {}, 0
    while position + 8 <= len(head):
        name, length = head[position : position + 4], int(struct.unpack("<I", head[position + 4 : position + 8])[0])
        if name == b"fmt " and position + 24 <= len(head):
            codec, channels, rate, bytes_per_s, _, bits = struct.unpack("<HHIIHH", head[position + 8 : position + 24])
            facts = {"codec": _CODECS.get(codec, f"codec {codec}"), "channels": channels, "rate_hz": rate, "bits": bits}
        if name == b"data" and bytes_per_s:
            return facts | {"length_s": round(min(length, size_bytes - position - 8) / bytes_per_s, 3)}
        position += 8 + length + length % 2
    return facts


def _flac(head: bytes) -> dict[str, Any]:
    """Rate, channels, bits and length from STREAMINFO, which is always first (RFC 9639, section 8.2)."""
    if len(head) < 26:
        return {}
    packed = int.from_bytes(head[18:26], "big")
    rate, samples = packed >> 44, packed & (2**36 - 1)
    facts = {"codec": "FLAC", "channels": (packed >> 41 & 7) + 1, "rate_hz": rate, "bits": (packed >> 36 & 31) + 1}
    return facts | ({"length_s": round(samples / rate, 3)} if rate and samples else {})
