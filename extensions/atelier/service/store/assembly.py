"""Rows of the store to the records that clients see."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Row

from atelier.records import REASON_TEXT, Artifact, Attempt, ModelVersion, Progress, Reason, Run, RunState


def attempt_of(row: Row[Any]) -> Attempt:
    """An attempt's record, with its reason's sentence where it has none of its own; the token's hash stays inside."""
    return Attempt(
        n=row.n,
        state=row.state,
        reason=row.reason,
        message=row.message or (REASON_TEXT[Reason(row.reason)][0] if row.reason else None),
        exit_code=row.exit_code,
        error=row.error,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        last_seen_at=row.last_seen_at,
        log_size_bytes=row.log_size,
        usage=row.usage,
    )


def run_of(
    row: Row[Any], attempts: Iterable[Attempt], *, artifacts: int, position: int | None, checkpoint_step: int | None
) -> Run:
    """A run's whole record."""
    return Run(
        id=row.id,
        owner=row.owner,
        project=row.project,
        name=row.name,
        spec=row.spec,
        state=RunState(row.state),
        desired=row.desired,
        reason=Reason(row.reason) if row.reason else None,
        message=row.message,
        hint=row.hint,
        image=row.image,
        machine=row.machine,
        memory_bytes=row.memory_bytes,
        priority=row.priority,
        queue_position=position,
        not_before=row.not_before if row.state == RunState.QUEUED else None,
        progress=_progress_of(row),
        attempts=list(attempts),
        checkpoint_step=checkpoint_step,
        environment=row.environment,
        source=row.source,
        metrics=row.metrics,
        artifacts=artifacts,
        warnings=row.warnings,
        pinned=row.pinned,
        created_at=row.created_at,
        queued_at=row.queued_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        epoch=row.epoch,
    )


def _progress_of(row: Row[Any]) -> Progress | None:
    if row.progress is None:
        return None
    shown = {key: row.progress[key] for key in ("done", "total", "at")} | {"unit": row.progress.get("unit")}
    return Progress(**shown, left_s=None if RunState(row.state).is_final else row.progress.get("left_s"))


def artifact_of(row: Row[Any]) -> Artifact:
    """An artifact's record."""
    return Artifact(
        path=row.path,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        kind=row.kind,
        attempt=row.attempt,
        created_at=row.created_at,
    )


def model_of(row: Row[Any], aliases: Sequence[str]) -> ModelVersion:
    """A model version's record."""
    return ModelVersion(
        name=row.name,
        version=row.version,
        owner=row.owner,
        project=row.project,
        run=row.run_id,
        aliases=sorted(aliases),
        card=row.card,
        files=row.files,
        size_bytes=row.size_bytes,
        created_at=row.created_at,
    )
