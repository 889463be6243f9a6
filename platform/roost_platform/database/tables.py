"""Every table, as SQLAlchemy Core sees it; the migrations in `versions/` make them.

Times are aware UTC in Python and text in ISO 8601 (SQLite) or timestamptz (PostgreSQL) below. Amounts are integers in
base units (microseconds, bytes, rows); no float is stored. `changes` and `gateways` hold rows on PostgreSQL only.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
    func,
    true,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcTime(TypeDecorator[datetime]):
    """Aware UTC datetimes on every database; refuses naive ones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a stored time must be aware")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)  # type: ignore[no-any-return]


tenants = Table(
    "tenants",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("quota", JSON, nullable=False),
    Column("created_at", UtcTime, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("tenant", String(63), nullable=False, index=True),
    Column("name", String(63), nullable=False),
    Column("hash", LargeBinary(32), nullable=False, unique=True),
    Column("scopes", JSON, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime),
    Column("revoked_at", UtcTime),
    Column("last_used_at", UtcTime),
    ForeignKeyConstraint(["tenant"], ["tenants.name"], ondelete="CASCADE"),
)

models = Table(
    "models",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("name", String(63), primary_key=True),
    Column("scaling", JSON, nullable=False),
    Column("traffic", JSON, nullable=False),  # [{"revision": name, "percent": n}]; empty until a revision was ready
    Column("last_version", Integer, nullable=False),
    Column("last_generation", Integer, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("routing", JSON, nullable=True),  # domain/routing.py: what sticks, rules, aliases; null = nothing of it
    ForeignKeyConstraint(["tenant"], ["tenants.name"], ondelete="CASCADE"),
)

versions = Table(
    "versions",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("digest", String(64), nullable=False, index=True),
    Column("size", BigInteger, nullable=False),
    Column("signature", JSON, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    ForeignKeyConstraint(["tenant", "model"], ["models.tenant", "models.name"], ondelete="CASCADE"),
    UniqueConstraint("tenant", "model", "digest"),
)

revisions = Table(
    "revisions",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("name", String(80), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("runtime", String(63), nullable=False),
    Column("max_batch_size", Integer, nullable=False),
    Column("state", String(16), nullable=False),  # deploying, ready, failed
    Column("reason", String(1000), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("takes_traffic", Boolean, nullable=False, server_default=true()),  # when it is ready; false = it waits
    ForeignKeyConstraint(
        ["tenant", "model", "version"], ["versions.tenant", "versions.model", "versions.number"], ondelete="CASCADE"
    ),
)

# The ledger: append-only, but for the sums of a minute's refusals, which grow. No foreign keys: usage outlives the tenant's models.
usage_events = Table(
    "usage_events",
    metadata,
    Column("source", String(32), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("time", UtcTime, nullable=False),
    Column("tenant", String(63), nullable=False),
    Column("model", String(63), nullable=False),
    Column("version", Integer, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("status", Integer, nullable=False),
    Column("compute_us", BigInteger, nullable=False),
    Column("queue_us", BigInteger, nullable=False),
    Column("cold_start_us", BigInteger, nullable=False),
    Column("bytes_in", BigInteger, nullable=False),
    Column("bytes_out", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("requests", BigInteger, nullable=False, server_default="1"),  # over 1 for summed refusals only
    Index("ix_usage_events_tenant_time", "tenant", "time"),
)

# How far each journal segment has been shipped; written in the transaction that adds its events.
journal_positions = Table(
    "journal_positions",
    metadata,
    Column("segment", String(64), primary_key=True),
    Column("offset", BigInteger, nullable=False),
)

# What other gateways must read again, in the order of commits (`changes.py`); kept for some minutes.
changes = Table(
    "changes",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("tenant", String(63), nullable=False),
    Column("model", String(63), nullable=False),  # empty: the tenant itself, and its keys
    Column("at", UtcTime, nullable=False, server_default=func.now()),
)

# Gateways that live, by their own word (`gateways.py`).
gateways = Table(
    "gateways",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("url", String(255), nullable=False),
    Column("seen_at", UtcTime, nullable=False, server_default=func.now()),
)

# One row: the oldest release, by its last migration, that reads and writes these tables rightly (`migrations.py`).
schema_facts = Table(
    "schema_facts",
    metadata,
    Column("readable_since", String(32), primary_key=True),
)

# The tables of money are in `money_tables.py`: importing it adds them to `metadata`.
