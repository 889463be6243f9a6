"""The tables of rollouts (migrations 0006 and 0008). Rows outlive the model."""

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, String, Table

from roost_platform.database.tables import UtcTime, metadata

_ID = BigInteger().with_variant(Integer(), "sqlite")

rollouts = Table(
    "rollouts",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("tenant", String(63), nullable=False),
    Column("model", String(63), nullable=False),
    Column("start", Integer, nullable=False),
    Column("to", Integer, nullable=False),
    Column("steps", JSON, nullable=False),
    Column("every_s", Integer, nullable=False),
    Column("guard", String(1000), nullable=False),
    Column("minimum", Integer, nullable=False),
    Column("compare", JSON),
    Column("state", String(16), nullable=False),
    Column("step", Integer, nullable=False),
    Column("step_began_at", UtcTime, nullable=False),
    Column("began_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Column("reason", String(1000), nullable=False),
    Index("ix_rollouts_tenant_model", "tenant", "model", "id"),
    Index("ix_rollouts_state", "state"),
    sqlite_autoincrement=True,
)

# What a gateway run has counted in a step: whole, so to write it twice does no harm. counts: {guard: [total, bad, total, bad]},
# of the new and of the serving version.
rollout_evidence = Table(
    "rollout_evidence",
    metadata,
    Column("rollout", _ID, primary_key=True, autoincrement=False),
    Column("step", Integer, primary_key=True),
    Column("gateway", String(63), primary_key=True),
    Column("counts", JSON, nullable=False),
)

# Every decision with its numbers. next_try_at: when somebody is to be told of it; empty = nobody, or they were.
rollout_events = Table(
    "rollout_events",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("rollout", _ID, nullable=False, index=True),
    Column("at", UtcTime, nullable=False),
    Column("by", String(63), nullable=False),
    Column("what", String(32), nullable=False),
    Column("facts", JSON, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("next_try_at", UtcTime, index=True),
    sqlite_autoincrement=True,
)
