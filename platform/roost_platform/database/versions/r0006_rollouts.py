"""Rollouts that judge themselves: what they are, what was counted for them, and every decision.

A migration is history: it spells its changes out and imports nothing of Roost, so that later changes there leave it alone.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rollouts",
        sa.Column("id", _id(), autoincrement=True, nullable=False),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("start", sa.Integer(), nullable=False),
        sa.Column("to", sa.Integer(), nullable=False),
        sa.Column("steps", sa.JSON(), nullable=False),
        sa.Column("every_s", sa.Integer(), nullable=False),
        sa.Column("guard", sa.String(1000), nullable=False),
        sa.Column("minimum", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("step_began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.String(1000), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_rollouts"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_rollouts_tenant_model", "rollouts", ["tenant", "model", "id"])
    op.create_index("ix_rollouts_state", "rollouts", ["state"])
    op.create_table(
        "rollout_evidence",
        sa.Column("rollout", _id(), autoincrement=False, nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("gateway", sa.String(63), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", "step", "gateway", name="pk_rollout_evidence"),
    )
    op.create_table(
        "rollout_events",
        sa.Column("id", _id(), autoincrement=True, nullable=False),
        sa.Column("rollout", _id(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("by", sa.String(63), nullable=False),
        sa.Column("what", sa.String(32), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_rollout_events"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_rollout_events_rollout", "rollout_events", ["rollout"])
    op.create_index("ix_rollout_events_next_try_at", "rollout_events", ["next_try_at"])


def downgrade() -> None:
    for table in ("rollout_events", "rollout_evidence", "rollouts"):
        op.drop_table(table)


def _id() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")
