"""Draws the picker: the part of the start page that offers images and machines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from atelier.hub.profiles import Card

TEMPLATES = Path(__file__).parent / "templates"


def picker(images: Sequence[Card], machines: Sequence[Card], *, problem: str = "") -> str:
    """HTML of the picker's fields; every value is escaped."""
    pages = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    ready = any(not card.why for card in images) and any(not card.why for card in machines)
    return pages.get_template("picker.html").render(images=images, machines=machines, problem=problem, ready=ready)
