"""The tables of the store."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
    }
)


class UtcTime(TypeDecorator[datetime]):
    """An aware moment, kept as naive UTC: SQLite has no zones, and both databases sort it rightly."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


counters = Table(
    "counters",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("id", String(12), primary_key=True),
    Column("owner", String(300), nullable=False),
    Column("project", String(300), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("name", String(200), nullable=False),
    Column("state", String(16), nullable=False),
    Column("desired", String(16), nullable=False, default="finished"),
    Column("reason", String(32)),
    Column("message", Text, nullable=False, default=""),
    Column("hint", Text, nullable=False, default=""),
    Column("image", String(63), nullable=False),
    Column("machine", String(63), nullable=False),
    Column("cpu", Float, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("accelerators", JSON, nullable=False),
    Column("spec", JSON, nullable=False),
    Column("source", JSON, nullable=False),
    Column("environment", JSON),
    Column("progress", JSON),
    Column("metrics", JSON, nullable=False, default=dict),
    Column("warnings", JSON, nullable=False, default=list),
    Column("attempt", Integer, nullable=False, default=0),
    Column("epoch", Integer, nullable=False, default=0),
    Column("change", BigInteger, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("queued_at", UtcTime),
    Column("queue_until", UtcTime),
    Column("not_before", UtcTime),
    Column("started_at", UtcTime),
    Column("ended_at", UtcTime),
    Column("recorded", Boolean, nullable=False, default=False),
    Column("priority", Integer, nullable=False, default=0),
    Column("turn_at", UtcTime),
    Column("pinned", Boolean, nullable=False, default=False),
    Column("kept_bytes", BigInteger),
    Index("ix_runs_owner_created", "owner", "created_at"),
    Index("ix_runs_owner_state_created", "owner", "state", "created_at"),
    Index("ix_runs_owner_id", "owner", "id"),
    Index("ix_runs_state_queued", "state", "queued_at"),
    Index("ix_runs_waits", "state", "owner", "queued_at", "id", "not_before"),
    Index("ix_runs_pauses", "state", "not_before", "id"),
    Index("ix_runs_owner_change", "owner", "change"),
    Index("ix_runs_recorded_ended", "recorded", "ended_at"),
)
_OWN_ORDER = (runs.c.priority.desc(), runs.c.turn_at, runs.c.id)
Index("ix_runs_turns", runs.c.state, runs.c.owner, *_OWN_ORDER, runs.c.not_before)

turns = Table(
    "turns",
    metadata,
    Column("owner", String(300), primary_key=True),
    Column("taken_at", UtcTime, nullable=False),
    Column("late_at", UtcTime),
)

removed_runs = Table(
    "removed_runs",
    metadata,
    Column("id", String(12), primary_key=True),
    Column("owner", String(300), nullable=False),
    Column("change", BigInteger, nullable=False),
    Column("removed_at", UtcTime, nullable=False),
    Column("swept_at", UtcTime),
    Index("ix_removed_runs_owner_change", "owner", "change"),
    Index("ix_removed_runs_swept_at", "swept_at"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("run_id", String(12), primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("state", String(16), nullable=False),
    Column("reason", String(32)),
    Column("message", Text),
    Column("exit_code", Integer),
    Column("error", JSON),
    Column("token_hash", String(64), nullable=False, unique=True),
    Column("stop", String(16)),
    Column("stop_grace_s", Float),
    Column("work_ended_at", UtcTime),
    Column("ran_s", Float, nullable=False, default=0.0),
    Column("launches", Integer, nullable=False, default=0),
    Column("recoveries", Integer, nullable=False, default=0),
    Column("created_at", UtcTime, nullable=False),
    Column("started_at", UtcTime),
    Column("ended_at", UtcTime),
    Column("last_seen_at", UtcTime),
    Column("log_size", BigInteger, nullable=False, default=0),
    Column("metrics_size", BigInteger, nullable=False, default=0),
    Column("usage", JSON, nullable=False, default=dict),
    ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
    Index("ix_attempts_state", "state"),
)

transitions = Table(
    "transitions",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("run_id", String(12), nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("before", String(16)),
    Column("after", String(16), nullable=False),
    Column("reason", String(32)),
    Column("at", UtcTime, nullable=False),
    ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
)

leases = Table(
    "leases",
    metadata,
    Column("device", String(100), primary_key=True),
    Column("resource", String(100), nullable=False),
    Column("holder", String(100), nullable=False, index=True),
    Column("owner", String(300), nullable=False),
    Column("since", UtcTime, nullable=False),
    Column("expires_at", UtcTime),
)

curves = Table(
    "curves",
    metadata,
    Column("run_id", String(12), primary_key=True),
    Column("name", String(200), primary_key=True),
    Column("last_step", BigInteger),
    Column("last_value", Float),
    Column("last_time", Float, nullable=False, default=0.0),
    Column("count", BigInteger, nullable=False, default=0),
    Column("stride", BigInteger, nullable=False, default=1),
    Column("points", LargeBinary, nullable=False, default=b""),
    Column("folded", BigInteger, nullable=False, default=0),
    Column("attempt", Integer, nullable=False, default=1),
    Column("older", BigInteger, nullable=False, default=0),
    ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
)

fresh_points = Table(
    "fresh_points",
    metadata,
    Column("run_id", String(12), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("attempt", Integer, nullable=False, default=1),
    Column("amount", BigInteger, nullable=False),
    Column("points", Text, nullable=False),
    ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("run_id", String(12), primary_key=True),
    Column("path", String(1024), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("run_id", String(12), primary_key=True),
    Column("step", BigInteger, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("copy", Integer, nullable=False, default=1),
    Column("files", JSON, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
)

submissions = Table(
    "submissions",
    metadata,
    Column("owner", String(300), primary_key=True),
    Column("key", String(200), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("run_id", String(12), nullable=False),
    Column("created_at", UtcTime, nullable=False),
)

models = Table(
    "models",
    metadata,
    Column("owner", String(300), primary_key=True),
    Column("name", String(63), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("project", String(300), nullable=False),
    Column("run_id", String(12)),
    Column("digest", String(64), nullable=False),
    Column("card", JSON, nullable=False),
    Column("files", JSON, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("published", Boolean, nullable=False, default=False),
)

aliases = Table(
    "aliases",
    metadata,
    Column("owner", String(300), primary_key=True),
    Column("name", String(63), primary_key=True),
    Column("alias", String(63), primary_key=True),
    Column("version", Integer, nullable=False),
)
