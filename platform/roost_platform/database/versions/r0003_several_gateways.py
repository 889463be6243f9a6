"""What several gateways on one database tell each other: what changed, who lives, and which release can read it.

A migration is history: it spells its changes out and imports nothing of Roost, so that later changes there leave it alone.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "changes",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("id", name="pk_changes"),
    )
    op.create_table(
        "gateways",
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("url", sa.String(255), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("name", name="pk_gateways"),
    )
    facts = op.create_table(
        "schema_facts",
        sa.Column("readable_since", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("readable_since", name="pk_schema_facts"),
    )
    op.bulk_insert(facts, [{"readable_since": revision}])


def downgrade() -> None:
    for table in ("schema_facts", "gateways", "changes"):
        op.drop_table(table)
