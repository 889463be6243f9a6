"""Splits, rules and aliases of models, versions that wait without traffic, and the log of who changed what.

A migration is history: it spells its changes out and imports nothing of Roost, so that later changes there leave it alone.
The log refuses to be changed, by triggers.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("models", sa.Column("routing", sa.JSON(), nullable=True))
    op.add_column("revisions", sa.Column("takes_traffic", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.create_table(
        "history",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("by", sa.String(63), nullable=False),
        sa.Column("what", sa.String(32), nullable=False),
        sa.Column("before", sa.JSON(), nullable=False),
        sa.Column("after", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_history"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_history_tenant_model", "history", ["tenant", "model", "id"])
    _protect()


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for name in ("final", "kept"):
            op.execute(f"DROP TRIGGER {name}_history ON history")
        op.execute("DROP FUNCTION refuse_history()")
    op.drop_table("history")
    op.drop_column("revisions", "takes_traffic")
    op.drop_column("models", "routing")


def _protect() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION refuse_history() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'history is final'; END $$"
        )
        op.execute(
            "CREATE TRIGGER final_history BEFORE UPDATE OR DELETE ON history "
            "FOR EACH ROW EXECUTE FUNCTION refuse_history()"
        )
        op.execute(
            "CREATE TRIGGER kept_history BEFORE TRUNCATE ON history FOR EACH STATEMENT EXECUTE FUNCTION refuse_history()"
        )
        return
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER final_history_{verb.lower()} BEFORE {verb} ON history "
            "BEGIN SELECT RAISE(ABORT, 'history is final'); END"
        )
