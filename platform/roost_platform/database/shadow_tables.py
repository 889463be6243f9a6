"""The tables of shadows (migration 0008). They go with their model, and what was counted with its shadow."""

from sqlalchemy import JSON, Column, ForeignKey, ForeignKeyConstraint, String, Table

from roost_platform.database.tables import UtcTime, metadata

# One of a model at most. plan: what is asked for, as `roost_platform.domain.shadows` has it.
shadows = Table(
    "shadows",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("plan", JSON, nullable=False),
    Column("began_at", UtcTime, nullable=False),
    ForeignKeyConstraint(["tenant", "model"], ["models.tenant", "models.name"], ondelete="CASCADE"),
)

# What a run of a gateway has counted: whole, so to write it twice does no harm.
shadow_sums = Table(
    "shadow_sums",
    metadata,
    Column("shadow", String(32), ForeignKey("shadows.id", ondelete="CASCADE"), primary_key=True),
    Column("source", String(32), primary_key=True),
    Column("document", JSON, nullable=False),
)
