"""Metering of more than calls, and everything about money: roll-ups, price books, final statements, budgets.

A migration is history: it spells its changes out and imports nothing of Roost, so that later changes there leave it alone.
Final statements, their marks, corrections and price books in force refuse to be changed, by triggers.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TABLES = (
    "sources",
    "unknown_calls",
    "ledger_conflicts",
    "usage_corrections",
    "resource_usage",
    "dirty_hours",
    "call_hours",
    "resource_hours",
    "price_books",
    "statements",
    "statement_marks",
    "budgets",
    "budget_alerts",
)
_FINAL = ("statements", "statement_marks", "usage_corrections")


def upgrade() -> None:
    _make_metering()
    _make_roll_ups()
    _make_money()
    _mark_hours()
    for table in _FINAL:
        _protect(table, "true")
    _protect("price_books", "OLD.effective_from <= CURRENT_TIMESTAMP")


def downgrade() -> None:
    for table in (*_FINAL, "price_books"):
        _unprotect(table)
    for table in reversed(_TABLES):
        op.drop_table(table)


def _make_metering() -> None:
    op.create_table(
        "sources",
        sa.Column("source", sa.String(32), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("opened", sa.BigInteger(), nullable=False),
        sa.Column("completed", sa.BigInteger(), nullable=False),
        sa.Column("unstored", sa.BigInteger(), nullable=False),
        sa.Column("unknown", sa.BigInteger(), nullable=False),
        sa.Column("shipped_until", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("source", name="pk_sources"),
    )
    op.create_table(
        "unknown_calls",
        sa.Column("source", sa.String(32), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.PrimaryKeyConstraint("source", "number", name="pk_unknown_calls"),
    )
    op.create_index("ix_unknown_calls_tenant_time", "unknown_calls", ["tenant", "time"])
    op.create_table(
        "ledger_conflicts",
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("id", sa.String(128), nullable=False),
        sa.Column("content_hash", sa.String(64), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("source", "id", "content_hash", name="pk_ledger_conflicts"),
    )
    op.create_table(
        "usage_corrections",
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("id", sa.String(128), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("compute_us", sa.BigInteger(), nullable=False),
        sa.Column("bytes_in", sa.BigInteger(), nullable=False),
        sa.Column("bytes_out", sa.BigInteger(), nullable=False),
        sa.Column("corrects_source", sa.String(32), nullable=False),
        sa.Column("corrects_sequence", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("content_hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("source", "id", name="pk_usage_corrections"),
    )
    op.create_index("ix_usage_corrections_tenant_time", "usage_corrections", ["tenant", "time"])
    op.create_table(
        "resource_usage",
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("id", sa.String(128), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("revision", sa.String(80), nullable=False),
        sa.Column("replica", sa.String(128), nullable=False),
        sa.Column("resource_class", sa.String(32), nullable=False),
        sa.Column("setup_us", sa.BigInteger(), nullable=False),
        sa.Column("active_us", sa.BigInteger(), nullable=False),
        sa.Column("idle_us", sa.BigInteger(), nullable=False),
        sa.Column("reserved_us", sa.BigInteger(), nullable=False),
        sa.Column("cold_starts", sa.BigInteger(), nullable=False),
        sa.Column("pull_us", sa.BigInteger(), nullable=False),
        sa.Column("schedule_us", sa.BigInteger(), nullable=False),
        sa.Column("load_us", sa.BigInteger(), nullable=False),
        sa.Column("byte_seconds", sa.BigInteger(), nullable=False),
        sa.Column("job_us", sa.BigInteger(), nullable=False),
        sa.Column("final", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("source", "id", name="pk_resource_usage"),
    )
    op.create_index("ix_resource_usage_tenant_start", "resource_usage", ["tenant", "start"])


def _make_roll_ups() -> None:
    op.create_table(
        "dirty_hours",
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("marks", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "tenant", "hour", name="pk_dirty_hours"),
    )
    op.create_table(
        "call_hours",
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("compute_us", sa.BigInteger(), nullable=False),
        sa.Column("queue_us", sa.BigInteger(), nullable=False),
        sa.Column("cold_starts", sa.BigInteger(), nullable=False),
        sa.Column("cold_start_us", sa.BigInteger(), nullable=False),
        sa.Column("bytes_in", sa.BigInteger(), nullable=False),
        sa.Column("bytes_out", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "hour", "model", "version", "outcome", name="pk_call_hours"),
    )
    op.create_table(
        "resource_hours",
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("resource_class", sa.String(32), nullable=False),
        sa.Column("setup_us", sa.BigInteger(), nullable=False),
        sa.Column("active_us", sa.BigInteger(), nullable=False),
        sa.Column("idle_us", sa.BigInteger(), nullable=False),
        sa.Column("reserved_us", sa.BigInteger(), nullable=False),
        sa.Column("cold_starts", sa.BigInteger(), nullable=False),
        sa.Column("pull_us", sa.BigInteger(), nullable=False),
        sa.Column("schedule_us", sa.BigInteger(), nullable=False),
        sa.Column("load_us", sa.BigInteger(), nullable=False),
        sa.Column("byte_seconds", sa.BigInteger(), nullable=False),
        sa.Column("job_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "hour", "model", "version", "resource_class", name="pk_resource_hours"),
    )


def _mark_hours() -> None:
    """What the ledger holds has no roll-ups yet."""
    if op.get_bind().dialect.name == "postgresql":
        hour = "date_trunc('hour', time, 'UTC')"
    else:
        hour = "strftime('%Y-%m-%d %H:00:00.000000', time)"
    op.execute(
        "INSERT INTO dirty_hours (kind, tenant, hour, marks) "  # noqa: S608 (nothing from outside)
        f"SELECT DISTINCT 'calls', tenant, {hour}, 1 FROM usage_events"
    )


def _make_money() -> None:
    op.create_table(
        "price_books",
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("effective_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.String(64), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_price_books"),
    )
    op.create_table(
        "statements",
        sa.Column("id", sa.String(96), nullable=False),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("month", sa.String(7), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("total", sa.String(40), nullable=False),
        sa.Column("inputs_hash", sa.String(64), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("finalized_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_statements"),
    )
    op.create_index("ix_statements_tenant_month", "statements", ["tenant", "month"])
    op.create_table(
        "statement_marks",
        sa.Column("statement", sa.String(96), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("note", sa.String(500), nullable=False),
        sa.PrimaryKeyConstraint("statement", "state", name="pk_statement_marks"),
    )
    op.create_table(
        "budgets",
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("amount", sa.String(40), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("thresholds", sa.JSON(), nullable=False),
        sa.Column("hard_cap", sa.Boolean(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("capped_month", sa.String(7), nullable=False),
        sa.Column("capped_spent", sa.String(40), nullable=False),
        sa.PrimaryKeyConstraint("tenant", name="pk_budgets"),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.name"], name="fk_budgets_tenant_tenants", ondelete="CASCADE"),
    )
    op.create_table(
        "budget_alerts",
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("month", sa.String(7), nullable=False),
        sa.Column("threshold", sa.Integer(), nullable=False),
        sa.Column("amount", sa.String(40), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("spent", sa.String(40), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "month", "threshold", "amount", name="pk_budget_alerts"),
    )
    op.create_index("ix_budget_alerts_next_try_at", "budget_alerts", ["next_try_at"])


def _protect(table: str, when: str) -> None:
    """Refuse to change or delete rows of which `when` holds."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            f"CREATE FUNCTION refuse_{table}() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{table} are final'; END $$"
        )
        op.execute(
            f"CREATE TRIGGER final_{table} BEFORE UPDATE OR DELETE ON {table} "
            f"FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION refuse_{table}()"
        )
        op.execute(
            f"CREATE TRIGGER kept_{table} BEFORE TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION refuse_{table}()"
        )
        return
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER final_{table}_{verb.lower()} BEFORE {verb} ON {table} WHEN {when} "
            f"BEGIN SELECT RAISE(ABORT, '{table} are final'); END"
        )


def _unprotect(table: str) -> None:
    if op.get_bind().dialect.name == "postgresql":
        for name in ("final", "kept"):
            op.execute(f"DROP TRIGGER {name}_{table} ON {table}")
        op.execute(f"DROP FUNCTION refuse_{table}()")
        return
    for verb in ("update", "delete"):
        op.execute(f"DROP TRIGGER final_{table}_{verb}")
