"""What the tests of held resources share: ready-made stretches, and what the database holds of them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select

from roost_platform.database.money_tables import dirty_hours, ledger_conflicts, resource_usage
from roost_platform.domain.resources import ResourceKind, ResourceUsage

NOON = datetime(2026, 11, 3, 12, tzinfo=UTC)


def stretch(number: int, *, source: str = "run", **changes: Any) -> ResourceUsage:
    start = NOON + timedelta(seconds=10 * number)
    values = {
        "kind": ResourceKind.REPLICA,
        "start": start,
        "end": start + timedelta(seconds=10),
        "tenant": "acme",
        "model": "iris",
        "version": 1,
        "revision": "iris-00001",
        "replica": "one",
        "resource_class": "cpu-1",
        "active_us": 4_000_000,
        "idle_us": 6_000_000,
    }
    return ResourceUsage(source=source, id=f"one/{number}", **(values | changes))


def held(connection: Connection) -> list[ResourceUsage]:
    """All stretches in the database, by their keys."""
    query = select(resource_usage).order_by(resource_usage.c.source, resource_usage.c.id)
    rows = connection.execute(query).mappings()
    return [ResourceUsage(**{**row, "kind": ResourceKind(row["kind"])}) for row in rows]


def dirty(connection: Connection) -> dict[tuple[str, str, datetime], int]:
    return {(row.kind, row.tenant, row.hour): row.marks for row in connection.execute(select(dirty_hours))}


def conflicts(connection: Connection) -> list[tuple[str, str]]:
    query = select(ledger_conflicts.c.source, ledger_conflicts.c.id).order_by(ledger_conflicts.c.id)
    return [(row.source, row.id) for row in connection.execute(query)]
