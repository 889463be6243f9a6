"""The tables of drift and quality: what is looked at, references, counts of what was seen, and how right answers were.

They go with their version. What is in the documents is `roost_platform.drift.profiles`'; values themselves are kept nowhere,
but for answers of models that ask for it.
"""

from sqlalchemy import JSON, Boolean, Column, Double, ForeignKeyConstraint, Index, Integer, String, Table

from roost_platform.database.tables import UtcTime, metadata

drift_settings = Table(
    "drift_settings",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("document", JSON, nullable=False),
    ForeignKeyConstraint(["tenant", "model"], ["models.tenant", "models.name"], ondelete="CASCADE"),
)

drift_profiles = Table(
    "drift_profiles",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("id", String(32), nullable=False),
    Column("made_at", UtcTime, nullable=False),
    Column("origin", String(16), nullable=False),  # calls, file
    Column("document", JSON, nullable=False),
    ForeignKeyConstraint(
        ["tenant", "model", "version"], ["versions.tenant", "versions.model", "versions.number"], ondelete="CASCADE"
    ),
)

# An hour as one run of a gateway saw it: it alone writes the row, each time whole.
drift_windows = Table(
    "drift_windows",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("start", UtcTime, primary_key=True),
    Column("source", String(32), primary_key=True),
    Column("profile", String(32), primary_key=True),
    Column("document", JSON, nullable=False),
    ForeignKeyConstraint(
        ["tenant", "model", "version"], ["versions.tenant", "versions.model", "versions.number"], ondelete="CASCADE"
    ),
    Index("ix_drift_windows_start", "start"),
)

# What was answered under a request id, until feedback comes for it or it is too old.
drift_answers = Table(
    "drift_answers",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("request_id", String(128), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("predicted", JSON, nullable=False),
    Column("judged", Boolean, nullable=False),
    ForeignKeyConstraint(
        ["tenant", "model", "version"], ["versions.tenant", "versions.model", "versions.number"], ondelete="CASCADE"
    ),
    Index("ix_drift_answers_at", "at"),
)

# Sums of feedback by UTC day and group; the empty group is that of feedback that names none.
drift_quality = Table(
    "drift_quality",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("group", String(63), primary_key=True),
    Column("answers", Integer, nullable=False),
    Column("right", Integer, nullable=False),
    Column("numbers", Integer, nullable=False),  # answers and labels that are both numbers; the sums are theirs
    Column("predicted", Double, nullable=False),
    Column("labelled", Double, nullable=False),
    Column("missed", Double, nullable=False),  # sum of absolute differences
    ForeignKeyConstraint(
        ["tenant", "model", "version"], ["versions.tenant", "versions.model", "versions.number"], ondelete="CASCADE"
    ),
)
