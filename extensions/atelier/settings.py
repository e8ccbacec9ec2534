"""``atelier.yaml``: the catalog, the limits, where state lies; read, checked, and refused with the line when wrong."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BeforeValidator, ConfigDict, Field, ValidationError

from atelier.errors import NotAllowed, RefusedInput
from atelier.quantities import parse_bytes, parse_cpu, parse_duration
from atelier.records import Record


def _checked(parse: Callable[[Any], Any]) -> BeforeValidator:
    """A parser of `atelier.quantities` as a pydantic validator, which knows only ValueError."""

    def check(value: Any) -> Any:
        try:
            return parse(value)
        except RefusedInput as problem:
            raise ValueError(f"{problem.message} {problem.hint}") from problem

    return BeforeValidator(check)


Bytes = Annotated[int, _checked(parse_bytes)]
Cores = Annotated[float, _checked(parse_cpu)]
Seconds = Annotated[float, _checked(parse_duration)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=63)]


class _Setting(Record):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Image(_Setting):
    """A framework environment: ``python`` is its interpreter on one machine, ``container`` its image in a cluster."""

    name: Name
    title: str = ""
    framework: str = ""
    version: str = ""
    python: str | None = None
    container: str | None = None
    min_driver: str | None = None
    groups: tuple[str, ...] = ()


class Machine(_Setting):
    """A size a user may ask for. ``accelerators`` maps a resource name to a count, e.g. ``{"nvidia.com/gpu": 1}``."""

    name: Name
    title: str = ""
    cpu: Cores = 1.0
    memory: Bytes = 2 * 2**30
    accelerators: dict[str, int] = Field(default_factory=dict)
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    spot: bool = False
    price_per_hour: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    groups: tuple[str, ...] = ()


class Root(_Setting):
    """A named folder or bucket of data that users may browse."""

    name: Name
    url: str
    title: str = ""
    groups: tuple[str, ...] = ()
    writable: bool = False


class Catalog(_Setting):
    """What users may pick from. An empty ``groups`` means everyone; the first entry a user may use is the default."""

    images: tuple[Image, ...] = ()
    machines: tuple[Machine, ...] = ()
    roots: tuple[Root, ...] = ()

    def image(self, name: str | None, groups: Iterable[str]) -> Image:
        """The image of that name, or the first allowed one for None.

        Raises
        ------
        RefusedInput
            ``unknown_image``: no such image; the known ones are in the detail.
        NotAllowed
            ``image_not_allowed``: none of the caller's groups may use it.
        """
        return _pick("image", self.images, name, groups)

    def machine(self, name: str | None, groups: Iterable[str]) -> Machine:
        """The machine of that name, or the first allowed one; raises as `image`, with ``unknown_machine``."""
        return _pick("machine", self.machines, name, groups)


Named = TypeVar("Named", Image, Machine)


def may_use(entry: Image | Machine | Root, groups: Iterable[str]) -> bool:
    """Whether a member of these groups may use an entry of the catalog."""
    return not entry.groups or bool(set(entry.groups) & set(groups))


SHIPPED = ("pytorch", "tensorflow")
"""Images that come with the project, one folder each in ``images/``."""


def _pick(what: str, entries: tuple[Named, ...], name: str | None, groups: Iterable[str]) -> Named:
    allowed = [entry for entry in entries if may_use(entry, groups)]
    known = [entry.name for entry in allowed]
    if name is None:
        if allowed:
            return allowed[0]
        words = f"The catalog has no {what} for you."
        raise RefusedInput(f"no_{what}", words, hint="Ask the administrator to add one.")
    for entry in entries:
        if entry.name == name:
            if entry in allowed:
                return entry
            raise NotAllowed(
                f"{what}_not_allowed", f"You may not use the {what} {name!r}.", hint=f"You may use: {', '.join(known)}."
            )
    nearest = difflib.get_close_matches(name, known, 1)
    raise RefusedInput(
        f"unknown_{what}",
        f"There is no {what} {name!r}.",
        hint=(f"Did you mean {nearest[0]!r}? " if nearest else "")
        + f"Known: {', '.join(known) or 'none'}."
        + (f" On one machine 'make up IMAGES={name}' adds one that Atelier ships." if name in SHIPPED else ""),
        detail={"known": known, "nearest": nearest[0] if nearest else None},
    )


class Limits(_Setting):
    """What one user may use at once, and what one run may make. None is no limit."""

    runs_per_user: int | None = Field(default=None, ge=1)
    cpu_per_user: Cores | None = None
    memory_per_user: Bytes | None = None
    bundle_size: Bytes = 100 * 2**20
    artifact_size: Bytes = 10 * 2**30
    checkpoint_size: Bytes = 20 * 2**30
    model_size: Bytes = 20 * 2**30
    log_size: Bytes = 256 * 2**20
    disk_size: Bytes = 50 * 2**30
    control_groups: bool = True
    install_time: Seconds = 1800.0
    queue_patience: Seconds = 3600.0
    patience: Seconds = 20.0
    silence: Seconds = 120.0
    preview_bytes: Bytes = 32 * 10**6
    preview_time: Seconds = 5.0

    @property
    def unpacked_size(self) -> int:
        """Bytes that the files of a bundle may have together."""
        return 4 * self.bundle_size


class Retention(_Setting):
    """How long ended runs are kept, by age and by the bytes of all of them; None is for ever.

    Each user has an equal share of ``size``, and what others leave of theirs; what is kept for good takes none of it.
    The newest ``keep`` of each user stay in any case, and so does what is pinned or has made a model.
    """

    age: Seconds | None = None
    size: Bytes | None = None
    keep: int = Field(default=20, ge=0)


class Kubernetes(_Setting):
    """The cluster backend's own settings."""

    namespace: str
    queue: str | None = None


class Settings(_Setting):
    """All of ``atelier.yaml``."""

    accounts: Literal["one", "system"] = "one"
    catalog: Catalog = Catalog()
    limits: Limits = Limits()
    retention: Retention = Retention()
    database: str | None = None
    blobs: str | None = None
    backend: Literal["local"] | dict[Literal["kubernetes"], Kubernetes] = "local"


class _Loader(yaml.SafeLoader):
    """Dates stay texts: none is expected, and one that no calendar has would be refused without its line."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regex) for tag, regex in known if tag != "tag:yaml.org,2002:timestamp"]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load_settings(path: Path) -> Settings:
    """The settings in a file; the defaults when there is none.

    Raises
    ------
    RefusedInput
        ``bad_settings``: not YAML, an unknown key (with the nearest known), a wrong unit; names file and line.
    """
    if not path.exists():
        return Settings()
    try:
        text = path.read_text(encoding="utf-8")
        tree = yaml.compose(text, Loader=_Loader)
        content = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as problem:
        raise RefusedInput("bad_settings", f"{path} is not YAML: {problem}", hint="Mend that line.") from problem
    try:
        return Settings.model_validate({} if content is None else content)
    except ValidationError as problem:
        raise RefusedInput("bad_settings", _explain(path, tree, problem), hint="See 'atelier doctor'.") from problem


def _explain(path: Path, tree: yaml.Node | None, problem: ValidationError) -> str:
    lines = []
    for error in problem.errors():
        place = ".".join(str(part) for part in error["loc"])
        words = error["msg"].removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            words = _unknown_key(error["loc"])
        lines.append(f"{path}:{_line_of(tree, error['loc'])}: {place}: {words}")
    return "\n".join(lines)


def _unknown_key(place: tuple[int | str, ...]) -> str:
    known = _known_keys(place)
    nearest = difflib.get_close_matches(str(place[-1]), known, 1)
    return "unknown key" + (f"; did you mean {nearest[0]!r}?" if nearest else "") + f" Known here: {', '.join(known)}."


def _known_keys(place: tuple[int | str, ...]) -> list[str]:
    parts: dict[str, type[Record]] = {
        "catalog": Catalog,
        "images": Image,
        "machines": Machine,
        "roots": Root,
        "limits": Limits,
        "retention": Retention,
        "kubernetes": Kubernetes,
    }
    model: type[Record] = Settings
    for part in place[:-1]:
        model = parts.get(str(part), model)
    return sorted(model.model_fields)


def _line_of(node: yaml.Node | None, place: tuple[int | str, ...]) -> int:
    line = 1
    for part in place:
        if isinstance(node, yaml.MappingNode):
            match = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if match is None:
                break
            line, node = match[0].start_mark.line + 1, match[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
