"""Backups of a home: made while its service works, verified, and restored into another home."""

from __future__ import annotations

from atelier.service.backups.checking import verify
from atelier.service.backups.making import back_up
from atelier.service.backups.restoring import restore

__all__ = ["back_up", "restore", "verify"]
