"""Shadows: which models have one, and what came of the copies; how a rollout compares answers.

A migration is history: it spells its changes out and imports nothing of Roost, so that later changes there leave it alone.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "shadows",
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("plan", sa.JSON(), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "model", name="pk_shadows"),
        sa.UniqueConstraint("id", name="uq_shadows_id"),
        sa.ForeignKeyConstraint(
            ["tenant", "model"], ["models.tenant", "models.name"], name="fk_shadows_tenant_models", ondelete="CASCADE"
        ),
    )
    op.create_table(
        "shadow_sums",
        sa.Column("shadow", sa.String(32), nullable=False),
        sa.Column("source", sa.String(32), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("shadow", "source", name="pk_shadow_sums"),
        sa.ForeignKeyConstraint(["shadow"], ["shadows.id"], name="fk_shadow_sums_shadow_shadows", ondelete="CASCADE"),
    )
    op.add_column("rollouts", sa.Column("compare", sa.JSON()))


def downgrade() -> None:
    op.drop_column("rollouts", "compare")
    op.drop_table("shadow_sums")
    op.drop_table("shadows")
