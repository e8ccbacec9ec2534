"""``atelier runs | show | logs | cancel | move | fetch | pin | rm``."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from atelier.cli.connection import client_of
from atelier.cli.output import STATE_COLOURS, Output
from atelier.client import Client
from atelier.display.evidence import attempt_rows, facts, is_explained, noticed
from atelier.display.text import ago, clean, lasted, run_progress_text
from atelier.errors import RefusedInput
from atelier.following import FINAL, LogPiece, follow_log, read_log, read_logs, watch
from atelier.quantities import format_bytes, format_duration, utcnow
from atelier.resolving import resolve_run

STATES = ("created", "queued", "starting", "running", "succeeded", "failed", "cancelled", "timed_out", "lost")
INTERRUPTED = 130


def runs(options: Namespace, output: Output) -> int:
    """List runs, newest first."""
    _check_list(options)
    with client_of(options) as client:
        items = list(client.newest_runs(state=options.state, limit=options.limit))
    output.document({"items": items})
    rows = [
        [
            record["id"],
            record["name"],
            record["state"],
            run_progress_text(record) or _waits(record),
            ago(record["created_at"]),
            lasted(record),
            record["image"],
            record["machine"],
        ]
        for record in items
    ]
    headings = ["run", "name", "state", "progress", "submitted", "took", "image", "machine"]
    output.table(headings, rows, empty="No runs yet. Make one with: atelier submit train.ipynb")
    return 0


def _check_list(options: Namespace) -> None:
    import difflib

    if options.limit < 1:
        raise RefusedInput("bad_limit", f"--limit {options.limit} is not a number of runs.", hint="Give 1 or more.")
    if options.state is not None and options.state not in STATES:
        near = difflib.get_close_matches(options.state, STATES, 1)
        raise RefusedInput(
            "unknown_state",
            f"There is no state {options.state!r}.",
            hint=(f"Did you mean {near[0]!r}? " if near else "") + f"Known: {', '.join(STATES)}.",
            detail={"known": list(STATES), "nearest": near[0] if near else None},
        )


def _waits(record: Mapping[str, Any]) -> str:
    """Where a waiting run stands, and why it waits: ``"place 3, waits for accelerator"``."""
    if record["state"] != "queued" or not record.get("queue_position"):
        return ""
    words = [f"place {record['queue_position']}"]
    if record.get("priority"):
        words.append(f"priority {record['priority']}")
    if record.get("reason"):
        words.append(str(record["reason"]).replace("_", " "))
    elif record.get("not_before"):
        pause_s = (datetime.fromisoformat(record["not_before"]) - utcnow()).total_seconds()
        words += [f"next attempt in {format_duration(pause_s)}"] if pause_s > 0 else []
    return ", ".join(words)


def show(options: Namespace, output: Output) -> int:
    """Say everything about a run."""
    with client_of(options) as client:
        record = resolve_run(client, options.run)
    output.document(record)
    show_record(record, output)
    return 0


def show_record(record: Mapping[str, Any], output: Output) -> None:
    """A run for people: its sentence, what to do, the facts, the user's own traceback."""
    state = output.paint(record["state"], STATE_COLOURS.get(record["state"], ""))
    output.say(f"{output.paint(record['id'], 'bold')}  {clean(record['name'])}  {state}")
    for text in (record["message"], record["hint"]):
        if text:
            output.say(f"  {text}")
    output.facts(_facts(record) | _evidence(record))
    if tries := attempt_rows(record):
        output.say()
        output.table(["attempt", "state", "started", "took", "why it ended"], tries, empty="", last_limit=400)
    for text in noticed(record):
        output.say(f"  {output.paint('warning', 'yellow')}  {text}")
    error = record["attempts"][-1]["error"] if record["attempts"] else None
    if error:
        place = f"cell {error['cell']}" if error.get("cell") else error.get("file") or ""
        line = f", line {error['line']}" if error.get("line") else ""
        output.say()
        output.say(output.paint(f"{place}{line}:" if place else "traceback:", "grey"))
        output.say(error["traceback"].rstrip())


def _facts(record: Mapping[str, Any]) -> dict[str, str]:
    spec, attempts = record["spec"], record["attempts"]
    usage = attempts[-1]["usage"] if attempts else {}
    return {
        "work": f"{spec['work']['target']} ({spec['work']['kind']})",
        "params": ", ".join(f"{name}={value!r}" for name, value in spec["params"].items()),
        "image": record["image"],
        "machine": record["machine"],
        "submitted": ago(record["created_at"]),
        "waits": _waits(record),
        "took": lasted(record) if record["started_at"] else "",
        "progress": run_progress_text(record),
        "metrics": ", ".join(f"{name} {_number(value)}" for name, value in record["metrics"].items()),
        "uses": _usage(usage) if record["state"] == "running" else "",
        "attempts": _tries(attempts, spec["retries"]),
        "files": f"{record['artifacts']} (atelier fetch {record['id']})" if record["artifacts"] else "",
        "code": _code(record["source"]),
        "kept": "pinned" if record.get("pinned") else "",
    }


def _tries(attempts: Sequence[Mapping[str, Any]], retries: int) -> str:
    """How many of those that a run may have; one that gave its place away costs none."""
    gave_way = sum(1 for attempt in attempts if attempt["state"] == "preempted")
    words = f"{len(attempts) - gave_way} of {retries + 1}" + (f", and {gave_way} preempted" if gave_way else "")
    return words if len(attempts) > 1 or retries else ""


def _evidence(record: Mapping[str, Any]) -> dict[str, str]:
    """What is known of how it ended or where it goes on, and is not told elsewhere."""
    told = {"In the queue", "Priority", "Next attempt", "Where"}
    return {name.lower(): value for name, value in facts(record) if name not in told} if is_explained(record) else {}


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def _usage(usage: Mapping[str, float]) -> str:
    words = {"cpu_percent": "CPU {:.0f} %", "gpu_percent": "GPU {:.0f} %"}
    shown = [words[name].format(value) for name, value in usage.items() if name in words]
    memory = [format_bytes(int(usage["memory_bytes"]))] if "memory_bytes" in usage else []
    return ", ".join(shown + memory)


def _code(source: Mapping[str, Any]) -> str:
    revision = (
        f", git {source['git_revision'][:10]}{' changed' if source['git_dirty'] else ''}"
        if source["git_revision"]
        else ""
    )
    files = "1 file" if source["files"] == 1 else f"{source['files']} files"
    return f"{files}, {format_bytes(source['size_bytes'])}{revision}" if source["files"] else ""


def logs(options: Namespace, output: Output) -> int:
    """Print the logs of a run's attempts as far as they are, or until the end."""
    with client_of(options) as client:
        record = resolve_run(client, options.run)
        if options.follow:
            return follow(client, record["id"], output, attempt=options.attempt, document=True)
        if options.attempt is not None:
            pieces = read_log(client, record["id"], attempt=options.attempt)
        else:
            pieces = read_logs(client, record["id"], len(record["attempts"]))
        printed = _printed(pieces, output, heads_first=options.attempt is None and len(record["attempts"]) > 1)
    output.document({"run": record["id"], **printed})
    return 0


def _printed(pieces: Iterable[LogPiece], output: Output, *, heads_first: bool = False) -> dict[str, Any]:
    """Print pieces as they come, a new attempt announced on stderr; the document of ``--json``."""
    attempt = None
    texts = []
    try:
        for piece in pieces:
            if piece.attempt != attempt and (heads_first or attempt is not None):
                output.end_log()
                output.note(f"--- attempt {piece.attempt} ---")
            attempt = piece.attempt
            output.write(piece.text)
            if output.as_json:
                texts.append(piece.text)
    finally:
        output.end_log()
    return {"attempt": attempt, "text": "".join(texts)}


def follow(client: Client, run_id: str, output: Output, *, attempt: int | None = None, document: bool = False) -> int:
    """Show a run's log, or one attempt's, until it is final; 0 when it succeeded, 1 else, 130 when interrupted."""
    pieces = (piece for piece in follow_log(client, run_id) if attempt in {None, piece.attempt})
    try:
        printed = _printed(pieces, output)
    except KeyboardInterrupt:
        return interrupted(run_id, output)
    if document:
        output.document({"run": run_id, **printed})
    return report_end(client.run(run_id), output)


def wait(client: Client, run_id: str, output: Output) -> int:
    """Tell each new state on stderr until the run is final; exit codes as `follow`."""
    told = ""
    try:
        for record in watch(client, run_id):
            if record["state"] != told and record["state"] not in FINAL:
                told = record["state"]
                output.note(f"{run_id}  {told}")
    except KeyboardInterrupt:
        return interrupted(run_id, output)
    record = client.run(run_id)
    error = record["attempts"][-1]["error"] if record["attempts"] else None
    if error:
        output.note(error["traceback"].rstrip())
    return report_end(record, output)


def report_end(record: Mapping[str, Any], output: Output) -> int:
    """One line on stderr of how a run ended, with the hint and for a failed one the traceback's place."""
    took = f" after {lasted(record)}" if record["started_at"] else ""
    output.note(f"{record['id']}  {record['state']}{took}")
    if record["state"] == "succeeded":
        return 0
    for text in (record["message"], record["hint"]):
        if text:
            output.note(f"  {text}")
    return 1


def interrupted(run_id: str, output: Output) -> int:
    """What is said after Ctrl-C; the run goes on."""
    output.note(
        f"\nThe run {run_id} goes on. Follow it again: atelier logs -f {run_id}    End it: atelier cancel {run_id}"
    )
    return INTERRUPTED


def cancel(options: Namespace, output: Output) -> int:
    """Ask a run to stop."""
    with client_of(options) as client:
        record = resolve_run(client, options.run)
        was_final = record["state"] in FINAL
        if not was_final:
            record = client.cancel(record["id"], now=options.now)
    output.document(record)
    if was_final:
        output.say(f"{record['id']} was already {record['state']}.")
    elif record["state"] in FINAL:
        output.say(f"{record['id']}  {record['state']}")
    else:
        output.say(f"{record['id']} is asked to stop; 'atelier show {record['id']}' says when it has.")
    return 0


def move(options: Namespace, output: Output) -> int:
    """Change a waiting run's place among one's own."""
    with client_of(options) as client:
        record = resolve_run(client, options.run)
        to: str | dict[str, str | int] = "first" if options.first else "last"
        if options.before is not None:
            to = {"before": resolve_run(client, options.before)["id"]}
        elif options.priority is not None:
            to = {"priority": options.priority}
        record = client.move(record["id"], to)
    output.document(record)
    output.say(f"{record['id']}  {_waits(record) or record['state']}")
    return 0


def fetch(options: Namespace, output: Output) -> int:
    """Copy the files that a run left."""
    with client_of(options) as client:
        record = resolve_run(client, options.run)
        folder = Path(options.out or record["id"])
        files = client.fetch(record["id"], folder)
    output.document({"run": record["id"], "folder": str(folder), "files": [str(path) for path in files]})
    for path in files:
        output.say(f"{format_bytes(path.stat().st_size):>10}  {path}")
    if not files:
        output.say(f"{record['id']} has left no files" + (" yet." if record["state"] not in FINAL else "."))
    return 0


def pin(options: Namespace, output: Output) -> int:
    """Keep a run, or take its pin away."""
    with client_of(options) as client:
        record = client.pin(resolve_run(client, options.run)["id"], pinned=not options.undo)
    output.document(record)
    kept = "is pinned: it stays until you take the pin away and delete it" if record["pinned"] else "is pinned no more"
    output.say(f"{record['id']} {kept}.")
    return 0


def rm(options: Namespace, output: Output) -> int:
    """Delete a run that has ended."""
    with client_of(options) as client:
        record = resolve_run(client, options.run)
        client.remove(record["id"])
    output.document({"removed": record["id"]})
    output.say(f"{record['id']} and its files are deleted.")
    return 0
