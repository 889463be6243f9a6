"""The first tables: tenants and keys, models with their versions and revisions, the usage ledger.

A migration is history: it spells its tables out and imports nothing of Roost, so that later changes there leave it alone.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _tenants()
    _models()
    _usage()


def downgrade() -> None:
    for table in (
        "journal_positions",
        "usage_events",
        "revisions",
        "versions",
        "models",
        "api_keys",
        "tenants",
    ):
        op.drop_table(table)


def _text(name: str, length: int = 63) -> "sa.Column[str]":
    return sa.Column(name, sa.String(length), nullable=False)


def _number(name: str) -> "sa.Column[int]":
    return sa.Column(name, sa.Integer(), nullable=False)


def _long(name: str) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger(), nullable=False)


def _json(name: str) -> "sa.Column[object]":
    return sa.Column(name, sa.JSON(), nullable=False)


def _time(name: str, *, nullable: bool = False) -> "sa.Column[object]":
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _tenants() -> None:
    op.create_table(
        "tenants",
        _text("name"),
        _json("quota"),
        _time("created_at"),
        sa.PrimaryKeyConstraint("name", name="pk_tenants"),
    )
    op.create_table(
        "api_keys",
        _text("id", 32),
        _text("tenant"),
        _text("name"),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
        _json("scopes"),
        _time("created_at"),
        _time("expires_at", nullable=True),
        _time("revoked_at", nullable=True),
        _time("last_used_at", nullable=True),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.name"], name="fk_api_keys_tenant_tenants", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("hash", name="uq_api_keys_hash"),
    )
    op.create_index("ix_api_keys_tenant", "api_keys", ["tenant"])


def _models() -> None:
    op.create_table(
        "models",
        _text("tenant"),
        _text("name"),
        _json("scaling"),
        _json("traffic"),
        _number("last_version"),
        _number("last_generation"),
        _time("created_at"),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.name"], name="fk_models_tenant_tenants", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("tenant", "name", name="pk_models"),
    )
    op.create_table(
        "versions",
        _text("tenant"),
        _text("model"),
        _number("number"),
        _text("digest", 64),
        _long("size"),
        _json("signature"),
        _long("memory_bytes"),
        _time("created_at"),
        sa.ForeignKeyConstraint(
            ["tenant", "model"],
            ["models.tenant", "models.name"],
            name="fk_versions_tenant_models",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant", "model", "number", name="pk_versions"),
        sa.UniqueConstraint("tenant", "model", "digest", name="uq_versions_tenant"),
    )
    op.create_index("ix_versions_digest", "versions", ["digest"])
    op.create_table(
        "revisions",
        _text("tenant"),
        _text("model"),
        _text("name", 80),
        _number("version"),
        _text("runtime"),
        _number("max_batch_size"),
        _text("state", 16),
        _text("reason", 1000),
        _time("created_at"),
        sa.ForeignKeyConstraint(
            ["tenant", "model", "version"],
            ["versions.tenant", "versions.model", "versions.number"],
            name="fk_revisions_tenant_versions",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant", "model", "name", name="pk_revisions"),
    )


def _usage() -> None:
    op.create_table(
        "usage_events",
        _text("source", 32),
        _long("sequence"),
        _time("time"),
        _text("tenant"),
        _text("model"),
        _number("version"),
        _text("outcome", 16),
        _number("status"),
        *map(_long, ("compute_us", "queue_us", "cold_start_us", "bytes_in", "bytes_out", "rows")),
        _text("request_id", 128),
        sa.PrimaryKeyConstraint("source", "sequence", name="pk_usage_events"),
    )
    op.create_index("ix_usage_events_tenant_time", "usage_events", ["tenant", "time"])
    op.create_table(
        "journal_positions",
        _text("segment", 64),
        _long("offset"),
        sa.PrimaryKeyConstraint("segment", name="pk_journal_positions"),
    )
