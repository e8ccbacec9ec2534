"""``atelier submit``: parameters from the command line and a file, then a run, then maybe its end."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from atelier.cli.connection import client_of
from atelier.cli.output import Output
from atelier.cli.runs import follow, wait
from atelier.client import Client
from atelier.errors import NotFound, RefusedInput
from atelier.quantities import format_bytes
from atelier.submission import Order, Submission, capture, parameters_of, prepare, send
from atelier.works.finding import Parameter, value_from_text


def submit(options: Namespace, output: Output) -> int:
    """Make a run; with ``--wait`` or ``--follow`` stay until it is final."""
    submission = _prepared(options)
    if options.dry_run:
        return _dry_run(submission, output)
    with client_of(options) as client:
        record = send(client, submission)
        for text in dict.fromkeys([*record["source"]["warnings"], *record["warnings"]]):
            output.note(f"warning: {text}")
        if not (options.wait or options.follow):
            output.document(record)
            output.say(
                f"{record['id']}  {record['name']}  {record['state']}  on {record['image']}, {record['machine']}"
            )
            output.say(f"Follow it with: atelier logs -f {record['id']}")
            return 0
        return _stay(client, record["id"], output, with_log=options.follow)


def _stay(client: Client, run_id: str, output: Output, *, with_log: bool) -> int:
    output.note(f"{run_id}  submitted")
    code = follow(client, run_id, output) if with_log else wait(client, run_id, output)
    output.document(client.run(run_id))
    return code


def _prepared(options: Namespace) -> Submission:
    parameters = parameters_of(options.work)
    params = read_params_file(Path(options.params_file)) if options.params_file else {}
    params |= typed_params(options.params, parameters)
    order = Order(
        image=options.image,
        machine=options.machine,
        nodes=options.nodes,
        retries=options.retries,
        retry_on=options.retry_on,
        priority=options.priority,
        timeout=options.timeout,
        queue_timeout=options.queue_timeout,
        stall_timeout=options.stall_timeout,
        name=options.name,
        project=options.project,
        data=options.data,
        include=options.include,
        exclude=options.exclude,
    )
    return prepare(options.work, params, order)


def typed_params(pairs: list[list[str]], parameters: tuple[Parameter, ...] | None) -> dict[str, Any]:
    """The values of ``-p NAME VALUE``, read as the type that the work declares; text where it declares ``str``."""
    types = {parameter.name: parameter.type for parameter in parameters or ()}
    return {name: value_from_text(text, types.get(name, "any")) for name, text in pairs}


def read_params_file(path: Path) -> dict[str, Any]:
    """The parameters in a YAML or JSON file.

    Raises
    ------
    NotFound
        ``params_file_not_found``.
    RefusedInput
        ``bad_params_file``: not YAML, or not a mapping of names to values.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as problem:
        raise NotFound(
            "params_file_not_found", f"There is no file {str(path)!r}.", hint="Look at the name after -f."
        ) from problem
    except (OSError, ValueError, yaml.YAMLError) as problem:
        raise RefusedInput(
            "bad_params_file", f"{path} can't be read as YAML: {problem}.", hint="Write lines as: epochs: 5"
        ) from problem
    if not isinstance(content or {}, dict):
        raise RefusedInput("bad_params_file", f"{path} holds no names with values.", hint="Write lines as: epochs: 5")
    return dict(content or {})


def _dry_run(submission: Submission, output: Output) -> int:
    plan = capture(submission)
    output.document(
        {
            "work": plan.work.model_dump(mode="json"),
            "params": dict(submission.params),
            "parameters": None if submission.parameters is None else [vars(entry) for entry in submission.parameters],
            "root": str(plan.root),
            "files": [{"path": file.path, "size_bytes": file.size_bytes} for file in plan.files],
            "size_bytes": plan.size_bytes,
            "warnings": list(plan.warnings),
        }
    )
    for file in plan.files:
        output.say(f"{format_bytes(file.size_bytes):>10}  {file.path}")
    output.say(f"{format_bytes(plan.size_bytes):>10}  in {len(plan.files)} files of {plan.root}; nothing was sent")
    for text in plan.warnings:
        output.note(f"warning: {text}")
    return 0
