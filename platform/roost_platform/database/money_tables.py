"""The tables of metering and billing beside the ledger of calls: what is held, roll-ups, prices, statements, budgets.

Amounts are integers in base units, money is a decimal string. What is final is protected by triggers (migration 0004).
"""

from sqlalchemy import JSON, BigInteger, Boolean, Column, ForeignKeyConstraint, Index, Integer, String, Table, Text

from roost_platform.database.tables import UtcTime, metadata

# One row per run of a gateway that has journalled anything: the balance of its calls. `opened` = calls taken on,
# `completed` = those in the ledger, `unstored` = those refused because their usage could not be written, `unknown` = the rest.
sources = Table(
    "sources",
    metadata,
    Column("source", String(32), primary_key=True),
    Column("started_at", UtcTime, nullable=False),
    Column("closed_at", UtcTime),  # empty while it runs, and until what it left behind has been counted
    Column("opened", BigInteger, nullable=False),
    Column("completed", BigInteger, nullable=False),
    Column("unstored", BigInteger, nullable=False),
    Column("unknown", BigInteger, nullable=False),
    Column("shipped_until", UtcTime),  # usage of before this moment is in the ledger; empty until it was first said
)

# Calls that were under way when their gateway died: never charged.
unknown_calls = Table(
    "unknown_calls",
    metadata,
    Column("source", String(32), primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("time", UtcTime, nullable=False),
    Column("tenant", String(63), nullable=False),
    Column("model", String(63), nullable=False),
    Column("version", Integer, nullable=False),
    Column("request_id", String(128), nullable=False),
    Index("ix_unknown_calls_tenant_time", "tenant", "time"),
)

# Events that came again under a known key with other content: the first is kept, these are looked at by a person.
ledger_conflicts = Table(
    "ledger_conflicts",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("id", String(128), primary_key=True),
    Column("content_hash", String(64), primary_key=True),
    Column("content", Text, nullable=False),
    Column("seen_at", UtcTime, nullable=False),
)

# New rows beside the ledger of calls: what an operator adds or takes back. Amounts may be negative.
usage_corrections = Table(
    "usage_corrections",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("id", String(128), primary_key=True),
    Column("time", UtcTime, nullable=False),
    Column("recorded_at", UtcTime, nullable=False),
    Column("tenant", String(63), nullable=False),
    Column("model", String(63), nullable=False),
    Column("version", Integer, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("compute_us", BigInteger, nullable=False),
    Column("bytes_in", BigInteger, nullable=False),
    Column("bytes_out", BigInteger, nullable=False),
    Column("corrects_source", String(32), nullable=False),  # empty where no single call is meant
    Column("corrects_sequence", BigInteger, nullable=False),
    Column("reason", String(500), nullable=False),
    Column("content_hash", String(64), nullable=False),
    Index("ix_usage_corrections_tenant_time", "tenant", "time"),
)

# The fields of ResourceUsage.
resource_usage = Table(
    "resource_usage",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("id", String(128), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("start", UtcTime, nullable=False),
    Column("end", UtcTime, nullable=False),
    Column("tenant", String(63), nullable=False),
    Column("model", String(63), nullable=False),
    Column("version", Integer, nullable=False),
    Column("revision", String(80), nullable=False),
    Column("replica", String(128), nullable=False),
    Column("resource_class", String(32), nullable=False),
    Column("setup_us", BigInteger, nullable=False),
    Column("active_us", BigInteger, nullable=False),
    Column("idle_us", BigInteger, nullable=False),
    Column("reserved_us", BigInteger, nullable=False),
    Column("cold_starts", BigInteger, nullable=False),
    Column("pull_us", BigInteger, nullable=False),
    Column("schedule_us", BigInteger, nullable=False),
    Column("load_us", BigInteger, nullable=False),
    Column("byte_seconds", BigInteger, nullable=False),
    Column("job_us", BigInteger, nullable=False),
    Column("final", Boolean, nullable=False),
    Index("ix_resource_usage_tenant_start", "tenant", "start"),
)

# Hours of a tenant whose roll-ups are behind. Written in the transaction that adds usage: `marks` grows, so that whoever
# rolls up at the same time waits, or is waited for. `kind` is `calls` or `resources`.
dirty_hours = Table(
    "dirty_hours",
    metadata,
    Column("kind", String(16), primary_key=True),
    Column("tenant", String(63), primary_key=True),
    Column("hour", UtcTime, primary_key=True),
    Column("marks", BigInteger, nullable=False),
)

# Roll-ups: sums of the ledger and its corrections by hour (UTC). They may be thrown away and are made again.
call_hours = Table(
    "call_hours",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("hour", UtcTime, primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("outcome", String(16), primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("compute_us", BigInteger, nullable=False),
    Column("queue_us", BigInteger, nullable=False),
    Column("cold_starts", BigInteger, nullable=False),  # calls that waited for a replica to wake
    Column("cold_start_us", BigInteger, nullable=False),
    Column("bytes_in", BigInteger, nullable=False),
    Column("bytes_out", BigInteger, nullable=False),
)

resource_hours = Table(
    "resource_hours",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("hour", UtcTime, primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("resource_class", String(32), primary_key=True),
    Column("setup_us", BigInteger, nullable=False),
    Column("active_us", BigInteger, nullable=False),
    Column("idle_us", BigInteger, nullable=False),
    Column("reserved_us", BigInteger, nullable=False),
    Column("cold_starts", BigInteger, nullable=False),
    Column("pull_us", BigInteger, nullable=False),
    Column("schedule_us", BigInteger, nullable=False),
    Column("load_us", BigInteger, nullable=False),
    Column("byte_seconds", BigInteger, nullable=False),
    Column("job_us", BigInteger, nullable=False),
)

# Price books and tenants' terms as they were first seen in force; `name` is e.g. `book/2026-10`.
price_books = Table(
    "price_books",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("effective_from", UtcTime, nullable=False),
    Column("content", Text, nullable=False),
    Column("content_hash", String(64), nullable=False),
    Column("recorded_at", UtcTime, nullable=False),
)

# Final documents: `acme-2026-11`, and its notes `acme-2026-11-C1` (credit), `acme-2026-11-D1` (debit).
statements = Table(
    "statements",
    metadata,
    Column("id", String(96), primary_key=True),
    Column("tenant", String(63), nullable=False),
    Column("month", String(7), nullable=False),
    Column("kind", String(16), nullable=False),  # statement, credit_note, debit_note
    Column("currency", String(3), nullable=False),
    Column("total", String(40), nullable=False),
    Column("inputs_hash", String(64), nullable=False),
    Column("document", Text, nullable=False),
    Column("finalized_at", UtcTime, nullable=False),
    Index("ix_statements_tenant_month", "tenant", "month"),
)

# What became of a final document: paid or void. Only added to.
statement_marks = Table(
    "statement_marks",
    metadata,
    Column("statement", String(96), primary_key=True),
    Column("state", String(16), primary_key=True),
    Column("at", UtcTime, nullable=False),
    Column("note", String(500), nullable=False),
)

budgets = Table(
    "budgets",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("amount", String(40), nullable=False),
    Column("currency", String(3), nullable=False),
    Column("thresholds", JSON, nullable=False),  # percents, ascending
    Column("hard_cap", Boolean, nullable=False),
    Column("changed_at", UtcTime, nullable=False),
    Column("capped_month", String(7), nullable=False),  # the month in which it was found used up; else empty
    Column("capped_spent", String(40), nullable=False),  # how much was spent when that was found
    ForeignKeyConstraint(["tenant"], ["tenants.name"], ondelete="CASCADE"),
)

# Each threshold of a budget of so much is told of once a month. `next_try_at` is empty once nobody has to be told any more.
budget_alerts = Table(
    "budget_alerts",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("month", String(7), primary_key=True),
    Column("threshold", Integer, primary_key=True),
    Column("amount", String(40), primary_key=True),
    Column("currency", String(3), nullable=False),
    Column("spent", String(40), nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("next_try_at", UtcTime, index=True),
    Column("delivered_at", UtcTime),
)
