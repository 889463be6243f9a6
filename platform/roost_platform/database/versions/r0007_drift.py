"""Drift and quality: what is looked at, references, hours of counts, answers that wait for feedback, and its sums.

A migration is history: it spells its changes out and imports nothing of Roost, so that later changes there leave it alone.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TABLES = ("drift_settings", "drift_profiles", "drift_windows", "drift_answers", "drift_quality")


def upgrade() -> None:
    op.create_table(
        "drift_settings",
        *_of_model(),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "model", name="pk_drift_settings"),
        sa.ForeignKeyConstraint(
            ["tenant", "model"],
            ["models.tenant", "models.name"],
            name="fk_drift_settings_tenant_models",
            ondelete="CASCADE",
        ),
    )
    _make(
        "drift_profiles",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("origin", sa.String(16), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        key=("version",),
    )
    _make(
        "drift_windows",
        sa.Column("start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("source", sa.String(32), nullable=False),
        sa.Column("profile", sa.String(32), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        key=("version", "start", "source", "profile"),
    )
    op.create_index("ix_drift_windows_start", "drift_windows", ["start"])
    _make(
        "drift_answers",
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("predicted", sa.JSON(), nullable=False),
        sa.Column("judged", sa.Boolean(), nullable=False),
        key=("request_id",),
    )
    op.create_index("ix_drift_answers_at", "drift_answers", ["at"])
    _make(
        "drift_quality",
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("group", sa.String(63), nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("answers", "right", "numbers")),
        *(sa.Column(name, sa.Double(), nullable=False) for name in ("predicted", "labelled", "missed")),
        key=("version", "day", "group"),
    )


def downgrade() -> None:
    for table in reversed(_TABLES):
        op.drop_table(table)


def _of_model() -> tuple[sa.Column[Any], ...]:
    return sa.Column("tenant", sa.String(63), nullable=False), sa.Column("model", sa.String(63), nullable=False)


def _make(name: str, *columns: sa.Column[Any], key: tuple[str, ...]) -> None:
    """A table of things that belong to a version."""
    op.create_table(
        name,
        *_of_model(),
        sa.Column("version", sa.Integer(), nullable=False),
        *columns,
        sa.PrimaryKeyConstraint("tenant", "model", *key, name=f"pk_{name}"),
        sa.ForeignKeyConstraint(
            ["tenant", "model", "version"],
            ["versions.tenant", "versions.model", "versions.number"],
            name=f"fk_{name}_tenant_versions",
            ondelete="CASCADE",
        ),
    )
