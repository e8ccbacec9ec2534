"""What the training form asks for: parameters of the work, places to run, files that go along; knows no widgets."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atelier.client import Client
from atelier.data.entries import iso_moment
from atelier.errors import AtelierError, RefusedInput
from atelier.handle import RunHandle
from atelier.local.catalog import accelerator_name
from atelier.submission import (
    BUNDLE_LIMIT_BYTES,
    Order,
    Submission,
    capture,
    named_place,
    option_of,
    parameters_of,
    prepare,
    send,
)
from atelier.works.finding import find_work
from atelier.works.parameters import Parameter, check_params, value_from_text

MAX_FILES_SHOWN = 300

_FIELDS = {
    "image": ("unknown_image", "image_not_allowed", "no_image", "image_not_available"),
    "machine": ("unknown_machine", "machine_not_allowed", "no_machine", "machine_not_available"),
    "files": ("bundle_too_large", "file_changed"),
    "timeout": ("bad_quantity",),
}
_FIELD_OF_CODE = {code: field for field, codes in _FIELDS.items() for code in codes}


@dataclass(frozen=True)
class Training:
    """The answers of a training form for one work.

    Parameters
    ----------
    work : str
        As `atelier.submit` takes it. It is read again for each answer, so that the form follows what is saved.
    """

    work: str

    def describe(self) -> dict[str, Any]:
        """The work and a field for each of its parameters. ``free`` says that they can't be known."""
        found = find_work(self.work, Path.cwd())
        parameters = parameters_of(self.work)
        return {
            "work": self.work,
            "kind": str(found.kind),
            "name": Path(found.target).stem if found.path.suffix == ".ipynb" else found.target,
            "saved_at": iso_moment(found.path.stat().st_mtime),
            "fields": [as_field(parameter) for parameter in parameters or ()],
            "free": parameters is None,
        }

    def places(self) -> dict[str, Any]:
        """Images and machines of the catalog, and which of them a run gets when nothing is picked."""
        catalog = Client.find().catalog()
        named = named_place(find_work(self.work, Path.cwd()))
        default = catalog.get("default") or {}
        images = [dict(entry) for entry in catalog["images"]]
        machines = [as_machine(entry) for entry in catalog["machines"]]
        return {
            "images": images,
            "machines": machines,
            "image": _picked(images, option_of("image", os.environ, named) or default.get("image")),
            "machine": _picked(machines, option_of("machine", os.environ, named) or default.get("machine")),
        }

    def files(self) -> dict[str, Any]:
        """What goes along with the work, largest first."""
        plan = capture(Submission(find_work(self.work, Path.cwd()), None, {}, Order()), BUNDLE_LIMIT_BYTES)
        largest = sorted(plan.files, key=lambda file: (-file.size_bytes, file.path))
        return {
            "root": str(plan.root),
            "count": len(plan.files),
            "size_bytes": plan.size_bytes,
            "files": [{"path": file.path, "size_bytes": file.size_bytes} for file in largest[:MAX_FILES_SHOWN]],
            "warnings": list(plan.warnings),
            "git_revision": plan.git_revision,
            "git_dirty": plan.git_dirty,
        }

    def check(self, values: Mapping[str, Any], **order: Any) -> dict[str, Any]:
        """What is wrong with each field, and the code that submits the same."""
        parameters = parameters_of(self.work)
        params, errors = read_values(parameters, values)
        return {"errors": errors, "code": code_for(self.work, params, order), "changed": sorted(params)}

    def submit(self, values: Mapping[str, Any], **order: Any) -> RunHandle:
        """Submit with the values of the form; the run.

        Raises
        ------
        AtelierError
            As `atelier.submit`; of several wrong fields the first is told.
        """
        params, errors = read_values(parameters_of(self.work), values)
        if errors:
            first = errors[0]
            raise RefusedInput(first["code"], first["message"], hint=first["hint"], detail=first["detail"])
        client = Client.find()
        return RunHandle(client, send(client, prepare(self.work, params, Order(**_given(order)))))


def as_machine(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A machine of the catalog, its accelerators by the names that people say."""
    counts = (entry.get("accelerators") or {}).items()
    return {**entry, "accelerators": {accelerator_name(kind): count for kind, count in counts}}


def as_field(parameter: Parameter) -> dict[str, Any]:
    """A parameter as a field of the form; ``text`` is its default as the user would type it."""
    return {
        "name": parameter.name,
        "type": parameter.type,
        "help": parameter.help,
        "required": parameter.required,
        "nullable": parameter.nullable,
        "choices": None if parameter.choices is None else [text_of(choice) for choice in parameter.choices],
        "text": text_of(parameter.default),
    }


def text_of(value: Any) -> str:
    """A JSON value as it stands in a field: text as it is, null as nothing."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def read_values(
    parameters: tuple[Parameter, ...] | None, values: Mapping[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Values that differ from the defaults, and what is wrong with each field.

    Parameters
    ----------
    parameters : tuple of Parameter or None
        None reads the one field ``*``, a JSON object, instead.
    values : mapping
        What stands in each field, text or bool.
    """
    if parameters is None:
        return _read_free(str(values.get("*", "")))
    params: dict[str, Any] = {}
    errors = []
    for parameter in parameters:
        text = str(values.get(parameter.name, text_of(parameter.default)))
        try:
            given = {} if text == text_of(parameter.default) else _read_value(parameter, text)
            check_params((parameter,), given)
            params |= given
        except RefusedInput as problem:
            errors.append(as_error(problem, f"parameter:{parameter.name}"))
    return params, errors


def _read_value(parameter: Parameter, text: str) -> dict[str, Any]:
    """The value of a changed field; an emptied one is null where that is allowed, else as if it had not been given."""
    if text.strip() == "" and parameter.type != "str":
        return {parameter.name: None} if parameter.nullable else {}
    if parameter.choices is not None:
        return {parameter.name: next((one for one in parameter.choices if text_of(one) == text), text)}
    return {parameter.name: value_from_text(text, parameter.type)}


def _read_free(text: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    try:
        params = json.loads(text or "{}")
        if not isinstance(params, dict):
            raise TypeError("no object")
        check_params(None, params)
    except (ValueError, TypeError, RecursionError):
        hint = 'Write one object, as in {"epochs": 5}.'
        return {}, [as_error(RefusedInput("not_json", "This is not a JSON object.", hint=hint), "parameter:*")]
    except RefusedInput as problem:
        return {}, [as_error(problem, "parameter:*")]
    return params, []


def as_error(problem: AtelierError, field: str = "") -> dict[str, Any]:
    """An error with the field of the form that it belongs to; ``""`` is the form as a whole."""
    detail = problem.detail
    name = detail.get("name") or next(iter(detail.get("missing") or ()), None)
    place = field or _FIELD_OF_CODE.get(problem.code) or (f"parameter:{name}" if name else "")
    return {"field": place, "code": problem.code, "message": problem.message, "hint": problem.hint, "detail": detail}


def code_for(work: str, params: Mapping[str, Any], order: Mapping[str, Any]) -> str:
    """The call that submits the same from a cell."""
    given = _given(order)
    parts = [json.dumps(work, ensure_ascii=False)]
    parts += [f"params={_literal(dict(params))}"] if params else []
    parts += [f"{name}={_literal(value)}" for name, value in given.items()]
    return f"atelier.submit({', '.join(parts)})"


def _literal(value: Any) -> str:
    """Python source of a JSON value, text in double quotes as people write it."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(item)}" for key, item in value.items()) + "}"
    return "[" + ", ".join(map(_literal, value)) + "]" if isinstance(value, list) else repr(value)


def _given(order: Mapping[str, Any]) -> dict[str, Any]:
    """What was picked in the form beside the parameters; empty fields are left to the defaults."""
    known = ("image", "machine", "name", "timeout", "retries")
    return {name: order[name] for name in known if order.get(name) not in (None, "", 0)}


def _picked(entries: list[dict[str, Any]], wanted: Any) -> str | None:
    """The default if it can be had, else the first that can."""
    names = [entry["name"] for entry in entries if entry["available"]]
    return wanted if wanted in names else names[0] if names else None
