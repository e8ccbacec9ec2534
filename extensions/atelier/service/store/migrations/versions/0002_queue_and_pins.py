"""Priorities, turns and long waits in the queue; whether a run is kept for good, and how many bytes are kept of it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("runs", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("runs", sa.Column("turn_at", sa.DateTime(), nullable=True))
    op.add_column("runs", sa.Column("pinned", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("runs", sa.Column("kept_bytes", sa.BigInteger(), nullable=True))
    op.add_column("attempts", sa.Column("stop_grace_s", sa.Float(), nullable=True))
    op.drop_column("attempts", "stop_at")
    op.add_column("attempts", sa.Column("ran_s", sa.Float(), nullable=False, server_default="0"))
    op.add_column("checkpoints", sa.Column("copy", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("fresh_points", sa.Column("attempt", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("curves", sa.Column("attempt", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("curves", sa.Column("older", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("models", sa.Column("published", sa.Boolean(), nullable=False, server_default=sa.true()))
    own_order = (sa.text("priority DESC"), "turn_at", "id")
    op.create_index("ix_runs_turns", "runs", ["state", "owner", *own_order, "not_before"])
    op.create_index("ix_runs_waits", "runs", ["state", "owner", "queued_at", "id", "not_before"])
    op.create_index("ix_runs_pauses", "runs", ["state", "not_before", "id"])
    op.create_index("ix_runs_owner_state_created", "runs", ["owner", "state", "created_at"])
    op.create_index("ix_runs_owner_id", "runs", ["owner", "id"])
    op.create_table(
        "turns",
        sa.Column("owner", sa.String(300), nullable=False),
        sa.Column("taken_at", sa.DateTime(), nullable=False),
        sa.Column("late_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("owner", name="pk_turns"),
    )
    op.execute("UPDATE runs SET turn_at = queued_at WHERE state = 'queued'")
