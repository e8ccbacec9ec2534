"""Runs in every state, made through the store's own methods: what the suites begin with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import update

from atelier.quantities import utcnow
from atelier.records import AttemptState, Reason, Run, RunSpec, RunState, Work, WorkKind
from atelier.service.store import Capacity, Claim, NewRun, Outcome, Quota, Store
from atelier.service.store.schema import runs

GPU = "nvidia.com/gpu"
GIB = 2**30
DONE = Outcome(AttemptState.SUCCEEDED, exit_code=0)
BROKEN = Outcome(AttemptState.FAILED, Reason.CODE_ERROR, "ValueError: no", 1)


def new_run(
    owner: str = "ann#1",
    *,
    key: str | None = None,
    cpu: float = 1.0,
    memory_bytes: int = GIB,
    gpus: int = 0,
    accelerators: dict[str, int] | None = None,
    **spec: Any,
) -> NewRun:
    """A submitted run; ``spec`` are fields of its `RunSpec`."""
    work = Work(kind=WorkKind.SCRIPT, target="train.py")
    asked = RunSpec(work=work, bundle="0" * 64, **spec)
    return NewRun(
        owner=owner,
        project=owner,
        name="train",
        spec=asked,
        image="plain",
        machine="small",
        cpu=cpu,
        memory_bytes=memory_bytes,
        accelerators=accelerators or ({GPU: gpus} if gpus else {}),
        source={},
        warnings=[],
        idempotency_key=key,
    )


def created(store: Store, owner: str = "ann#1", **fields: Any) -> str:
    """The id of a run that is created."""
    return store.runs.submit(new_run(owner, **fields))[0].id


def queued(store: Store, owner: str = "ann#1", **fields: Any) -> str:
    """The id of a run that is queued."""
    run_id = created(store, owner, **fields)
    store.runs.queue(run_id)
    return run_id


def claimed(store: Store, capacity: Capacity | None = None, quota: Quota | None = None) -> Claim:
    """The claim of the first run that fits; fails when there is none."""
    claim, waits = store.queue.claim(capacity or Capacity(devices={GPU: ["GPU-1"]}), quota or Quota())
    assert claim is not None, f"nothing could be claimed: {waits}"
    return claim


def starting(store: Store, owner: str = "ann#1", **fields: Any) -> Claim:
    """The claim of a run that is starting; nothing else may be waiting."""
    run_id = queued(store, owner, **fields)
    claim = claimed(store)
    assert claim.run_id == run_id
    return claim


def running(store: Store, owner: str = "ann#1", **fields: Any) -> Claim:
    """The claim of a run that is running; nothing else may be waiting."""
    claim = starting(store, owner, **fields)
    store.runs.started(claim.run_id, claim.n, None)
    return claim


def beat(
    store: Store,
    claim: Claim,
    *,
    progress: dict[str, Any] | None = None,
    usage: dict[str, float] | None = None,
    warnings: Sequence[str] = (),
    code_warnings: Sequence[str] = (),
    ran_s: float | None = None,
) -> tuple[str, float] | None:
    """A sign of life of an attempt; the order to stop, if there is one."""
    key = claim.run_id, claim.n
    return store.streams.heartbeat(
        *key, progress=progress, usage=usage or {}, warnings=warnings, code_warnings=code_warnings, ran_s=ran_s
    )


def finished(store: Store, owner: str = "ann#1", *, outcome: Outcome = DONE, **fields: Any) -> str:
    """The id of a run whose only attempt has ended."""
    claim = running(store, owner, **fields)
    return store.runs.finish(claim.run_id, claim.n, outcome).id


def due_now(store: Store, run_id: str) -> None:
    """Let a run that waits for its next attempt wait no longer."""
    with store.database.write() as connection:
        connection.execute(update(runs).where(runs.c.id == run_id).values(not_before=None))


def in_state(store: Store, state: RunState) -> Run:
    """A run that was brought to a state by nothing but the row itself."""
    run_id, now = created(store), utcnow()
    with store.database.write() as connection:
        connection.execute(
            update(runs).where(runs.c.id == run_id).values(state=state.value, queued_at=now, turn_at=now)
        )
    return store.runs.get(run_id)
