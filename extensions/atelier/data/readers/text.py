"""Text: the encoding by a look at the bytes, and the first block of it."""

from __future__ import annotations

import codecs

from atelier.data.readers.subject import TEXT_BYTES, Plan, Shown, Subject

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def plan_text(subject: Subject) -> Plan:
    """The first 256 KiB."""
    length = min(subject.reader.size_bytes, TEXT_BYTES)
    return Plan(length, "the beginning of the text", lambda: _read(subject, length))


def decode(block: bytes) -> tuple[str, str]:
    """A block of text and the encoding it was read in: UTF-8, UTF-16 by its mark or its zeros, else Windows-1252.

    A last letter that the block's end cuts through is left out.
    """
    encoding = _encoding(block)
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    return decoder.decode(block), encoding.removesuffix("-sig")


def _encoding(block: bytes) -> str:
    marked = next((encoding for mark, encoding in _MARKS if block.startswith(mark)), None)
    if marked:
        return marked
    if by_zeros := _by_zeros(block[:2048]):
        return by_zeros
    try:
        codecs.getincrementaldecoder("utf-8")().decode(block)
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def _by_zeros(sample: bytes) -> str | None:
    """UTF-16 without a mark: ASCII letters then have a zero in every other byte, and hardly one between."""
    half = max(1, len(sample) // 2)
    even, odd = sample[0::2].count(0) / half, sample[1::2].count(0) / half
    if odd > 0.7 and even < 0.1:
        return "utf-16-le"
    return "utf-16-be" if even > 0.7 and odd < 0.1 else None


def _read(subject: Subject, length: int) -> Shown:
    text, encoding = decode(subject.reader.at(0, length))
    note = "The text contains NUL characters." if "\0" in text else ""
    return Shown(
        text=text, facts={"encoding": encoding}, truncated=subject.cut or length < subject.reader.size_bytes, note=note
    )
