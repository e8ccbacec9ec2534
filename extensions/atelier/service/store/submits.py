"""Submits: the rows of a run that is new, and the key by which a repeat of its submit is known."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select

from atelier.errors import Conflict
from atelier.quantities import utcnow
from atelier.records import RunSpec, RunState, new_run_id
from atelier.service.store.lifecycle import WORDS, run_row
from atelier.service.store.schema import runs, submissions, transitions

_LATER = ("retry_on", "priority")
"""Fields of a spec that its first schema didn't have: left at their defaults they make no other run."""


@dataclass(frozen=True)
class NewRun:
    """All that a submitted run is made of. ``cpu`` in cores; ``accelerators`` maps a resource to a count."""

    owner: str
    project: str
    name: str
    spec: RunSpec
    image: str
    machine: str
    cpu: float
    memory_bytes: int
    accelerators: dict[str, int]
    source: dict[str, Any]
    warnings: list[str]
    idempotency_key: str | None = None


def digest_of(spec: RunSpec) -> str:
    """Tells whether two submits are of the same run, also where an older Atelier has seen the first one."""
    told = spec.model_dump(mode="json")
    usual = RunSpec(work=spec.work, bundle=spec.bundle).model_dump(mode="json")
    for name in _LATER:
        if told[name] == usual[name]:
            del told[name]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def known_submit(connection: Connection, new: NewRun, digest: str) -> str | None:
    """The run that an earlier submit with the same key has made, or None.

    Raises
    ------
    Conflict
        ``key_reused``: that was of another spec. ``run_removed``: the run was removed since.
    """
    if new.idempotency_key is None:
        return None
    mine = (submissions.c.owner == new.owner) & (submissions.c.key == new.idempotency_key)
    row = connection.execute(select(submissions).where(mine)).first()
    if row is None:
        return None
    if row.digest != digest:
        raise Conflict(
            "key_reused",
            f"The Idempotency-Key {new.idempotency_key!r} was used for another run ({row.run_id}).",
            hint="Use a fresh key for each submit.",
        )
    if run_row(connection, row.run_id) is None:
        raise Conflict(
            "run_removed",
            f"The Idempotency-Key {new.idempotency_key!r} made the run {row.run_id}, which was removed since.",
            hint="Use a fresh key to run it again.",
        )
    return str(row.run_id)


def note_submit(connection: Connection, new: NewRun, digest: str, run_id: str) -> None:
    """Note which run a submit has made, when it came with a key."""
    if new.idempotency_key is not None:
        row = {"owner": new.owner, "key": new.idempotency_key, "digest": digest, "run_id": run_id}
        connection.execute(insert(submissions).values(**row, created_at=utcnow()))


def insert_run(connection: Connection, new: NewRun, change: int) -> str:
    """Make the rows of a run that is created; its id."""
    run_id, now = new_run_id(), utcnow()
    connection.execute(
        insert(runs).values(
            id=run_id,
            owner=new.owner,
            project=new.project,
            kind=new.spec.kind,
            name=new.name,
            state=RunState.CREATED.value,
            priority=new.spec.priority,
            message=WORDS[RunState.CREATED],
            image=new.image,
            machine=new.machine,
            cpu=new.cpu,
            memory_bytes=new.memory_bytes,
            accelerators=new.accelerators,
            spec=new.spec.model_dump(mode="json"),
            source=new.source,
            warnings=new.warnings,
            metrics={},
            change=change,
            created_at=now,
        )
    )
    moved = {"run_id": run_id, "attempt": 0, "before": None, "after": RunState.CREATED.value}
    connection.execute(insert(transitions).values(**moved, at=now))
    return run_id
