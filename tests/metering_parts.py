"""What the metering tests share: a real ledger, ready-made events, and what the ledger holds."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, select

from databases import url_of
from roost_platform.database.connection import Database
from roost_platform.database.money_tables import sources, unknown_calls
from roost_platform.database.tables import metadata, usage_events
from roost_platform.domain.usage import Outcome, UsageEvent
from roost_platform.metering.intents import SUFFIX
from roost_platform.metering.journal import Journal
from roost_platform.metering.sources import Balance

NOON = datetime(2026, 11, 3, 12, tzinfo=UTC)
NOON_US = int(NOON.timestamp()) * 10**6


@contextmanager
def ledger_in(folder: Path) -> Iterator[Database]:
    database = Database(url_of(folder))
    metadata.create_all(database.engine)
    try:
        yield database
    finally:
        database.close()


def append(journal: Journal, request_id: str, **changes: object) -> None:
    values = {
        "time_us": NOON_US,
        "tenant": "acme",
        "model": "iris",
        "version": 1,
        "outcome": Outcome.OK,
        "status": 200,
        "compute_us": 1500,
        "queue_us": 20,
        "cold_start_us": 0,
        "bytes_in": 100,
        "bytes_out": 60,
        "rows": 1,
        "request_id": request_id,
    }
    journal.append(**(values | changes))  # type: ignore[arg-type]


def event(sequence: int, *, source: str = "run", time: datetime = NOON, **changes: object) -> UsageEvent:
    values = {
        "tenant": "acme",
        "model": "iris",
        "version": 1,
        "outcome": Outcome.OK,
        "status": 200,
        "compute_us": 1500,
        "queue_us": 20,
        "cold_start_us": 0,
        "bytes_in": 100,
        "bytes_out": 60,
        "rows": 1,
        "request_id": f"r{sequence}",
    }
    return UsageEvent(source=source, sequence=sequence, time=time, **(values | changes))  # type: ignore[arg-type]


def request_ids(connection: Connection) -> list[str]:
    """Of all events in the ledger, in the order they were made in."""
    query = select(usage_events.c.request_id).order_by(usage_events.c.source, usage_events.c.sequence)
    return list(connection.scalars(query))


def balances(connection: Connection) -> list[Balance]:
    """Of the runs whose books are closed, by their names."""
    row = sources.c
    query = select(row.source, row.opened, row.completed, row.unstored, row.unknown)
    return [Balance(*each) for each in connection.execute(query.where(row.closed_at.is_not(None)).order_by(row.source))]


def unknown_ids(connection: Connection) -> list[str]:
    """Request ids of calls that were under way when their gateway died, in the order that they were taken on."""
    call = unknown_calls.c
    return list(connection.scalars(select(call.request_id).order_by(call.source, call.number)))


def now() -> datetime:
    return datetime.now(UTC)


def segments(folder: Path) -> list[str]:
    """What lies in the journal's folder, but for the files of calls under way."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != SUFFIX)
