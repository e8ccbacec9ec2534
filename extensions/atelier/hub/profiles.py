"""What a user may start: the check of their choice against the catalog, and the cards that the picker shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atelier.errors import RefusedInput
from atelier.local.catalog import accelerator_name, availability, title_of
from atelier.local.computer import Computer
from atelier.quantities import format_bytes
from atelier.settings import Catalog, Image, Machine, may_use

OPTIONS = ("image", "machine")


@dataclass(frozen=True)
class Pick:
    """A checked choice."""

    image: Image
    machine: Machine

    @property
    def names(self) -> dict[str, str]:
        """The choice as server options."""
        return {"image": self.image.name, "machine": self.machine.name}


@dataclass(frozen=True)
class Card:
    """One thing to pick.

    ``facts`` are (label, value) pairs, ``family`` colours the card, ``why`` says why the thing can't be had now.
    """

    name: str
    title: str
    subtitle: str
    summary: str
    family: str
    facts: tuple[tuple[str, str], ...]
    price: str
    why: str | None
    chosen: bool


def check_options(options: object) -> dict[str, str | None]:
    """The names in a choice as it came over HTTP; an absent one is None.

    Raises
    ------
    RefusedInput
        ``bad_options``: not an object, a name that is not text, or a field besides ``image`` and ``machine``.
    """
    hint = 'Send {"image": "<name>", "machine": "<name>"}.'
    if not isinstance(options, Mapping):
        raise RefusedInput("bad_options", "The server options are not an object.", hint=hint)
    unknown = sorted(str(name) for name in options if name not in OPTIONS)
    if unknown:
        raise RefusedInput("bad_options", f"Unknown server option {unknown[0][:80]!r}.", hint=hint)
    for name in OPTIONS:
        if not isinstance(options.get(name), str | None):
            raise RefusedInput("bad_options", f"The server option {name!r} is not a text.", hint=hint)
    return {name: options.get(name) or None for name in OPTIONS}


def options_of_form(form: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The choice in a sent form; fields that are not ours (the hub's XSRF token, say) are left out."""
    return {name: form[name][0] for name in OPTIONS if form.get(name)}


def pick(catalog: Catalog, options: object, groups: Iterable[str], computer: Computer) -> Pick:
    """The image and machine of a choice; the first that can be had where it names none.

    Raises
    ------
    RefusedInput
        ``bad_options``, ``unknown_image``, ``unknown_machine``, ``no_image``, ``no_machine``, ``image_not_available``,
        ``machine_not_available``.
    NotAllowed
        ``image_not_allowed``, ``machine_not_allowed``.
    """
    wanted, groups = check_options(options), tuple(groups)
    image = catalog.image(wanted["image"] or _first(catalog.images, groups, computer), groups)
    machine = catalog.machine(wanted["machine"] or _first(catalog.machines, groups, computer), groups)
    _require("image", image, computer)
    _require("machine", machine, computer)
    return Pick(image, machine)


def _first(entries: Sequence[Image] | Sequence[Machine], groups: Sequence[str], computer: Computer) -> str | None:
    usable = (entry.name for entry in entries if may_use(entry, groups) and availability(entry, computer) is None)
    return next(usable, None)


def _require(what: str, entry: Image | Machine, computer: Computer) -> None:
    why = availability(entry, computer)
    if why:
        raise RefusedInput(f"{what}_not_available", f"The {what} {entry.name!r} is not available.", hint=why)


def image_cards(catalog: Catalog, options: object, groups: Iterable[str], computer: Computer) -> list[Card]:
    """Cards of the images that these groups may use; the last choice is marked, else the first that can be had."""
    groups = tuple(groups)
    chosen = _preselected(catalog.images, "image", options, groups, computer)
    return [
        Card(
            name=image.name,
            title=image.title or image.name,
            subtitle="",
            summary=image.title or image.name,
            family=image.framework.lower(),
            facts=_present([("Framework", image.framework), ("Version", image.version)]),
            price="",
            why=availability(image, computer),
            chosen=image.name == chosen,
        )
        for image in catalog.images
        if may_use(image, groups)
    ]


def machine_cards(catalog: Catalog, options: object, groups: Iterable[str], computer: Computer) -> list[Card]:
    """Cards of the machines that these groups may use."""
    groups = tuple(groups)
    chosen = _preselected(catalog.machines, "machine", options, groups, computer)
    return [
        Card(
            name=machine.name,
            title=machine.name,
            subtitle="" if machine.title == title_of(machine) else machine.title,
            summary=f"{machine.name} ({title_of(machine)})",
            family="",
            facts=_machine_facts(machine, computer),
            price=f"{machine.price_per_hour:g} / hour" if machine.price_per_hour else "free",
            why=availability(machine, computer),
            chosen=machine.name == chosen,
        )
        for machine in catalog.machines
        if may_use(machine, groups)
    ]


def _preselected(
    entries: Sequence[Image] | Sequence[Machine], what: str, options: object, groups: Sequence[str], computer: Computer
) -> str | None:
    last = options.get(what) if isinstance(options, Mapping) else None
    usable = [entry.name for entry in entries if may_use(entry, groups) and availability(entry, computer) is None]
    return last if last in usable else next(iter(usable), None)


def _machine_facts(machine: Machine, computer: Computer) -> tuple[tuple[str, str], ...]:
    names = {gpu.name for gpu in computer.gpus}
    accelerators = [f"{count} × {accelerator_name(kind)}" for kind, count in machine.accelerators.items()]
    return _present(
        [
            ("CPUs", f"{machine.cpu:g}"),
            ("Memory", format_bytes(machine.memory)),
            ("Accelerator", ", ".join(accelerators) or "none"),
            ("Model", ", ".join(sorted(names)) if accelerators and names else ""),
        ]
    )


def _present(facts: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple((label, value) for label, value in facts if value)
