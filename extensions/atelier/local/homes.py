"""Where the files of hub users are who have no account of their own on this computer."""

from __future__ import annotations

from pathlib import Path


def home_of(user: str, atelier_home: Path) -> Path:
    """The home of a hub user other than the login user, who has the account's own; there or not."""
    return atelier_home / "homes" / safe_name(user)


def safe_name(name: str) -> str:
    """A user name as one part of a path, never the same for two: all but ``a-z 0-9 -`` becomes ``_`` and a byte."""
    kept = "abcdefghijklmnopqrstuvwxyz0123456789-"
    return "".join(char if char in kept else "".join(f"_{byte:02x}" for byte in char.encode()) for char in name)
