"""Reads server-sent events out of a byte stream, for ever, whatever happens to the connection."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple


class Event(NamedTuple):
    """One change that the service tells.

    Parameters
    ----------
    type : str
        ``run``, ``log``, ``metrics``, ``artifact``, ``removed``; from the client itself ``open`` (connected, so
        look at the truth once) and ``idle`` (nothing happened for a while).
    data : JSON
        As in the API's documentation; an empty dict for the client's own two.
    id : str, optional
        Where a later connection goes on.
    """

    type: str
    data: Any
    id: str | None = None


def parse_events(chunks: Iterable[bytes]) -> Iterator[Event]:
    """The events in a byte stream; a comment (the service's heartbeat) comes out as ``idle``.

    Lines end at LF or CR LF only: JSON may hold U+2028, which `str.splitlines` and `httpx`'s line reader cut at.
    """
    fields: dict[str, list[str]] = {}
    last_id = None
    for line in _lines(chunks):
        if line.startswith(":"):
            yield Event("idle", {}, last_id)
        elif line:
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
        else:
            last_id = fields.get("id", [last_id])[-1]
            if "data" in fields:
                kind = fields.get("event", ["message"])[-1]
                yield Event(kind, json.loads("\n".join(fields["data"])), last_id)
            fields = {}


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    rest = bytearray()
    for chunk in chunks:
        rest += chunk
        *whole, last = bytes(rest).split(b"\n")
        rest = bytearray(last)
        for line in whole:
            yield line.removesuffix(b"\r").decode()
